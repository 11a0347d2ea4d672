"""How a number, a table, a figure and an answer look; nothing is computed or read here."""
