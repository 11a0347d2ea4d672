"""Frozen image encoders that users bring: their cards, their loading, what they have seen of the cohort."""
