"""Tables, figures and the HTML page, from metrics and facts."""
