"""Weighted means of finished strategies' predictions, with weights that are learned on validation alone."""
