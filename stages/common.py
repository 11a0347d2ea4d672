"""common: what all train cells share, as one file that stands for it among their deps: code, packed data, params.

DVC writes dvc.lock anew, whole, after every stage: a cell that lists what all cells list costs seconds.
"""

import dataclasses
from pathlib import Path

from pipeline import files
from pipeline.closure import ROOT, closure
from pipeline.data.tensors import FILES, embedding_files
from pipeline.modelling.registry import module_name, names
from pipeline.params import read
from stages import stage

PARAMS = ("series.tier", "training", "scales.encoders", "scales.training")


def shared_code() -> list[Path]:
    """Files that train cells need, their strategies' own left out; relative to the root, sorted."""
    modules = [module_name(name) for name in names()]
    own = {Path(f"{module.replace('.', '/')}.py") for module in modules}
    return [path for path in closure("stages.train", *modules) if path not in own]


@stage
def main() -> None:
    """Writes data/common.json: {code: {file: SHA-256}, data: {file: SHA-256}, params: {key: value}}."""
    tier, *blocks = read(*PARAMS)
    content = {
        "code": {path.as_posix(): files.sha256(ROOT / path) for path in shared_code()},
        "data": {name: files.sha256(Path("data") / name) for name in (*FILES, *embedding_files(blocks[0].image))},
        "params": dict(zip(PARAMS, (tier, *map(dataclasses.asdict, blocks)), strict=True)),
    }
    files.write_json(content, Path("data/common.json"))


if __name__ == "__main__":
    main()
