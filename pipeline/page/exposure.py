"""What a frozen image encoder has seen of those it is judged on: a line across the page's head, a badge a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TOLD = {  # badge -> what is said of the encoder
    "images seen": "which has seen images of patients that are tested here",
    "labels or reports seen": "which has learned from labels or reports of patients that are tested here",
    "unknown": "of which it is not known whether it has seen patients that are tested here",
}


def badges(exposure: Any, modalities: Mapping[str, list[str]]) -> dict[str, str]:
    """Strategy -> badge, of those that see images, where an encoder is frozen.

    `exposure` is reports/data/exposure.json, None where it is absent; `modalities` are by strategy.
    """
    used = _in_use(exposure)
    return {name: used["badge"] for name, seen in modalities.items() if "cxr" in seen} if used else {}


def banner(exposure: Any) -> list[tuple[str, str]]:
    """(word, sentence), unless the encoder is clean or trained with the strategies."""
    used = _in_use(exposure)
    if not used or used["badge"] == "clean":
        return []
    sentence = (
        f"Images are seen through {used['encoder']}, a frozen encoder {TOLD[used['badge']]} ({used['why']}): what an "
        "image adds may look better here than it is for others."
    )
    word = "OVERLAP UNKNOWN" if used["badge"] == "unknown" else used["badge"].upper()
    return [(word, sentence)]


def _in_use(exposure: Any) -> Any:
    return exposure["encoders"][exposure["in_use"]] if exposure and exposure["in_use"] else None
