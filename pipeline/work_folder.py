"""Where all lies that outlives a stage: the run store, and shards of embeddings."""

from __future__ import annotations

import os
from pathlib import Path


def work_folder() -> Path:
    """FUSION_WORK, else work/ in the project's root; of a copy that DVC makes, in the project's own root."""
    if os.environ.get("FUSION_WORK"):
        return Path(os.environ["FUSION_WORK"])
    here = Path.cwd()
    for parent in here.parents:
        if parent.name == ".dvc" and (parent / "tmp") in [here, *here.parents]:
            return parent.parent / "work"
    return here / "work"
