"""The synthetic hospital: MIMIC-shaped files with known answers."""
