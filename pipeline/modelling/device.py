"""Where torch computes."""

from __future__ import annotations

import torch

from pipeline.errors import InputError


def pick_device(wanted: str, knob: str = "training.device") -> torch.device:
    """auto: a GPU where there is one. Raises InputError, naming `knob`, where cuda is asked for and is not there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{knob}: cuda is asked for, but torch finds no GPU")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
