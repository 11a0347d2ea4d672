"""What this machine has, and what `training.precision: auto` means on it; torch is imported for ResNets alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pipeline.params import END_TO_END, Encoders, Training


def gpus(device: str) -> list[str]:
    """GPUs that runs on `device` (training.device) may use, as CUDA_VISIBLE_DEVICES names them; without torch."""
    if device == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    return [str(i) for i in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def native_bf16() -> bool:
    """Whether this CPU multiplies bf16 itself, as torch finds it."""
    from torch.cpu import get_capabilities

    capabilities = get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def precision(training: Training, encoders: Encoders) -> Literal["fp32", "bf16"]:
    """What training.precision stands for here: `auto` is bf16 on a GPU, and on a CPU that multiplies it for a ResNet.

    A step of ResNet-50 takes 0.6 of the time so. The narrow CNN, or none, gains nothing: on every CPU it is fp32.
    """
    if training.precision != "auto":
        return training.precision
    if training.device == "cuda" or gpus(training.device):
        return "bf16"
    return "bf16" if training.image == END_TO_END and encoders.cnn != "narrow" and native_bf16() else "fp32"
