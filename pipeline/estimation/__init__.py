"""Statistics: arrays in, arrays out. No file is read here."""
