"""The smallest encoders that have all parts."""

from pipeline.params import Encoders

ENCODERS = Encoders(width=8, heads=2, layers=1, dropout=0.1, cnn="narrow", cnn_width=4)
