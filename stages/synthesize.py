"""synthesize: write the synthetic hospital and its planted truth."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.params import read
from pipeline.synthetic import hospital
from stages import stage

RAW, TRUTH = Path("data/raw/synthetic"), Path("data/truth")


@stage
def main() -> None:
    """Read the params, write the declared outputs."""
    synthetic, scale = read("synthetic", "scales.synthetic")
    hospital.write(RAW, TRUTH, params=synthetic, scale=scale, workers=min(os.cpu_count() or 1, 16))


if __name__ == "__main__":
    main()
