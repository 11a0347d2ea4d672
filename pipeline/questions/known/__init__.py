"""How the verdicts of question 1 compare with what was planted in the synthetic hospital."""
