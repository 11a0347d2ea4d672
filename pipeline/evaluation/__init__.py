"""Metrics and intervals, from stored predictions."""
