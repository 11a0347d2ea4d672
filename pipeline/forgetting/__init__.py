"""What was learned first, when more is learned: sequences replayed on the frozen encoders of finished runs."""
