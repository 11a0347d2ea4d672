"""A question is a room, from its statistic to its section of the page."""
