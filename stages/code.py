"""code: the digests of all code that every train cell depends on, in one file that stands for it among their deps."""

from pathlib import Path

from pipeline import files
from pipeline.closure import ROOT, closure
from pipeline.strategies.registry import module_name, names
from stages import stage


def shared_code() -> list[Path]:
    """Files that train cells need, their strategies' own left out; relative to the root, sorted."""
    modules = [module_name(name) for name in names()]
    own = {Path(f"{module.replace('.', '/')}.py") for module in modules}
    return [path for path in closure("stages.train", *modules) if path not in own]


@stage
def main() -> None:
    """Writes data/code.json: {file: SHA-256}."""
    files.write_json({path.as_posix(): files.sha256(ROOT / path) for path in shared_code()}, Path("data/code.json"))


if __name__ == "__main__":
    main()
