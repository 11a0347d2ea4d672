"""The run store: finished runs, checkpoints and weights, filed under the hash of all that a run is a function of.

It lies outside of every stage's outputs, so that a killed cell resumes and a finished run is never repeated:
FUSION_WORK, else work/ in the project's root (in a copy that DVC makes for `exp run --temp` or `--queue`: in the
project's own root, not in the copy).

A run's folder holds spec.json, checkpoint.safetensors (while it runs), weights.safetensors, predictions.safetensors and
history.json; result.json is written last and marks it as finished. A run is claimed by a lock on its folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline import files
from pipeline.closure import ROOT, closure
from pipeline.data.tensors import FILES
from pipeline.modelling.registry import module_name
from pipeline.training.grid import RunSpec

log = logging.getLogger("train")

# Code that cannot change a result: it reads params, reports errors, writes files. The rest of the closure counts.
_PLUMBING = {
    Path(f"pipeline/{name}.py")
    for name in (
        "params",
        "strict",
        "errors",
        "files",
        "closure",
        "training/grid",
        "training/machine",
        "training/store",
    )
}


def work_folder() -> Path:
    """Where the run store lies."""
    if os.environ.get("FUSION_WORK"):
        return Path(os.environ["FUSION_WORK"])
    here = Path.cwd()
    for parent in here.parents:
        if parent.name == ".dvc" and (parent / "tmp") in [here, *here.parents]:
            return parent.parent / "work"
    return here / "work"


def data_fingerprint(folder: Path) -> str:
    """Digest of the packed artefacts below `folder` (data/)."""
    return _digest({name: files.sha256(folder / name) for name in FILES})


@functools.cache
def code_fingerprint(strategy: str) -> str:
    """Digest of the sources that a run of the strategy depends on: its own file and the shared core."""
    sources = closure("pipeline.training.run", module_name(strategy))
    return _digest({path.as_posix(): files.sha256(ROOT / path) for path in sources if path not in _PLUMBING})


@functools.cache
def _weights_digest(path: Path, changed_ns: int) -> str:
    return files.sha256(path)


def _weights(pretrained: str) -> str:
    """What training.pretrained stands for: the content of a file, or a name."""
    path = Path(pretrained)
    return _weights_digest(path, path.stat().st_mtime_ns) if path.is_file() else pretrained


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Store:
    """Folders of runs below `work`, for the data with this fingerprint."""

    work: Path
    data: str

    def identity(self, spec: RunSpec) -> dict[str, Any]:
        """What the run is filed under: the content of pretrained weights, not their path; not how often it is saved."""
        content = dataclasses.asdict(dataclasses.replace(spec, needs={}))
        del content["needs"]
        del content["training"]["checkpoint_seconds"]
        content["training"]["pretrained"] = _weights(spec.training.pretrained)
        return {
            "spec": content,
            "needs": {name: self.name(earlier) for name, earlier in spec.needs.items()},
            "data": self.data,
            "code": code_fingerprint(spec.strategy),
            "torch": version("torch"),
            "torchvision": version("torchvision"),
            "numpy": version("numpy"),
            "scikit-learn": version("scikit-learn"),
        }

    def name(self, spec: RunSpec) -> str:
        """What the run is filed under: a digest of its identity."""
        return _digest(self.identity(spec))[:24]

    def folder(self, spec: RunSpec) -> Path:
        """The run's folder, which need not exist."""
        return self.work / "runs" / self.name(spec)

    def finished(self, spec: RunSpec) -> bool:
        """Whether the run has been made."""
        return (self.folder(spec) / "result.json").is_file()

    @contextlib.contextmanager
    def claimed(self, spec: RunSpec) -> Iterator[Path]:
        """The run's folder, made where it is not there, while this process alone works on it; waits for its turn."""
        folder = self.folder(spec)
        lock = FileLock(folder / "lock")  # the system drops it with the process, however that ends
        try:
            with files.writing(folder / "lock"):
                folder.mkdir(parents=True, exist_ok=True)
                lock.acquire(blocking=False)
        except Timeout:
            log.info("%s: another process is at it; waiting", spec.name)
            lock.acquire()
        try:
            for left in folder.glob(".*.part"):  # of a process that was killed while it wrote
                left.unlink()
            files.write_json(self.identity(spec), folder / "spec.json", digits=12)
            yield folder
        finally:
            lock.release()
