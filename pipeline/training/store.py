"""The run store: finished runs, checkpoints and weights, filed under the hash of all that a run is a function of.

It lies outside of every stage's outputs, so that a killed cell resumes and a finished run is never repeated:
FUSION_WORK, else work/ in the project's root (in a copy that DVC makes for `exp run --temp` or `--queue`: in the
project's own root, not in the copy).

A run's folder holds spec.json, checkpoint.safetensors (while it runs), weights.safetensors, predictions.safetensors and
history.json, and of a strategy that learns in steps steps.safetensors: what it answers after each (stay_id [rows] and
logits [S, rows, K], of the stays of predictions.safetensors). result.json is written last, when these are on the disk,
and marks it as finished. A run is claimed by a lease on its folder (pipeline.training.claim).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.closure import ROOT, closure
from pipeline.data.tensors import FILES, embedding_files
from pipeline.errors import InputError
from pipeline.modelling.cards import parts, read_card
from pipeline.modelling.registry import module_name
from pipeline.params import END_TO_END
from pipeline.training.claim import Claim, claimed
from pipeline.training.grid import RunSpec
from pipeline.work_folder import work_folder

CHECKPOINT, RESULT, STEPS = "checkpoint.safetensors", "result.json", "steps.safetensors"
MADE = ("weights.safetensors", "predictions.safetensors", "history.json")
GRACE_SECONDS = 10.0  # in which a file shows that a process of another machine has just written

# Code that cannot change a result: it reads params, reports errors, writes files. The rest of the closure counts.
_PLUMBING = {
    Path(f"pipeline/{name}.py")
    for name in (
        "strict",
        "errors",
        "files",
        "closure",
        "owners",
        "work_folder",
        "training/claim",
        "training/grid",
        "training/machine",
        "training/store",
    )
} | {path.relative_to(ROOT) for path in (ROOT / "pipeline/params").glob("*.py")}


def data_fingerprint(folder: Path) -> str:
    """Digest of the packed artefacts below `folder` (data/)."""
    return _digest({name: files.sha256(folder / name) for name in FILES})


@functools.cache
def code_files(*strategies: str) -> dict[str, str]:
    """Digests of the sources that a run made of the strategies (`parts`) depends on: their files, the shared core."""
    sources = closure("pipeline.training.run", *map(module_name, strategies))
    return {path.as_posix(): files.sha256(ROOT / path) for path in sources if path not in _PLUMBING}


@functools.cache  # each is read from a file
def versions() -> dict[str, str]:
    """Of the packages that compute a run."""
    return {name: version(name) for name in ("torch", "torchvision", "numpy", "scikit-learn")}


@functools.cache
def _file_digest(path: Path, changed_ns: int) -> str:
    return files.sha256(path)


def weights_digest(pretrained: str) -> str:
    """What training.pretrained stands for: the content of a file, or a name."""
    path = Path(pretrained)
    return _file_digest(path, path.stat().st_mtime_ns) if path.is_file() else pretrained


def embeddings_digest(image: str, data: Path) -> str:
    """Of the embeddings of the encoder `image` below `data`: of model, pixels and all that was done to them.

    Raises InputError where there are none.
    """
    paths = [data / name for name in embedding_files(image)]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: not found; make it with `dvc repro embed@{image}`")
    return _digest([_file_digest(path, path.stat().st_mtime_ns) for path in paths])


def sees_images(spec: RunSpec) -> bool:
    """Whether an image's content can change what the run answers, the runs that it needs apart."""
    return any("cxr" in read_card(name).modalities for name in parts(spec.strategy, spec.hyper))


def code_digest(spec: RunSpec) -> str:
    """Of the sources that the run depends on, as they are now."""
    return _digest(code_files(*parts(spec.strategy, spec.hyper)))


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Store:
    """Folders of runs below `work`, for the data with this fingerprint, which lie in `source`."""

    work: Path
    data: str
    source: Path = Path("data")

    @classmethod
    def of(cls, data: Path) -> Store:
        """The store of this project, for the data below `data`."""
        return cls(work_folder(), data_fingerprint(data), data)

    def identity(self, spec: RunSpec) -> dict[str, Any]:
        """What the run is filed under: the content of pretrained weights, not their path; not how often it is saved.

        Of embeddings their content, too, where the run sees images.
        """
        content = dataclasses.asdict(dataclasses.replace(spec, needs={}))
        del content["needs"]
        del content["training"]["checkpoint_seconds"]
        content["training"]["pretrained"] = weights_digest(spec.training.pretrained)
        del content["training"]["image"]
        if spec.training.image != END_TO_END and sees_images(spec):
            content["training"]["image"] = embeddings_digest(spec.training.image, self.source)
        return {
            "spec": content,
            "needs": {name: self.name(earlier) for name, earlier in spec.needs.items()},
            "data": self.data,
            "code": code_digest(spec),
            **versions(),
        }

    def name(self, spec: RunSpec) -> str:
        """What the run is filed under: a digest of its identity."""
        return _digest(self.identity(spec))[:24]

    def folder(self, spec: RunSpec) -> Path:
        """The run's folder, which need not exist."""
        return self.work / "runs" / self.name(spec)

    def finished(self, spec: RunSpec, grace: float = 0.0) -> bool:
        """Whether the run has been made.

        A network file system may show only later what another machine has written: of a run that a process says to have
        made, ask with a `grace` of GRACE_SECONDS.
        """
        path = self.folder(spec) / RESULT
        until = time.monotonic() + grace
        while not path.is_file():
            if time.monotonic() >= until:
                return False
            time.sleep(grace / 50)
            with contextlib.suppress(OSError):
                os.listdir(path.parent)  # noqa: PTH208 - the server is asked anew where a folder is opened
        return True

    @contextlib.contextmanager
    def claimed(self, spec: RunSpec, wait: bool = True) -> Iterator[Claim | None]:
        """The run, with its folder made, while this process works on it.

        Where another one is at it: waits for its turn, or None without `wait`. In the block, an error that follows from
        a lost lease is LeaseLost. Raises InputError where the store cannot be written to.
        """
        with claimed(self.folder(spec), spec.name, wait) as claim:
            if claim:
                files.remove_left(claim.folder, idle=claim.seconds)
                files.write_json(self.identity(spec), claim.folder / "spec.json", digits=12)
            yield claim

    def finish(self, claim: Claim, result: dict[str, Any]) -> None:
        """Marks the claimed run as made: once all of its files are on the disk, `result` is written.

        Raises LeaseLost where another process has taken it over.
        """
        claim.check()
        own = [STEPS] if (claim.folder / STEPS).is_file() else []
        files.flush(*(claim.folder / name for name in (*MADE, *own)))
        files.write_json(result, claim.folder / RESULT)
        files.flush(claim.folder / RESULT)
        (claim.folder / CHECKPOINT).unlink(missing_ok=True)
