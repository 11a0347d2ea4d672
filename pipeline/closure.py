"""Which files of this project a Python module needs: the static closure of its imports.

Two uses of one idea: the run store files a run under the code that it depends on, and a test compares each stage's
closure with the deps that dvc.yaml declares. Imports inside of functions count; so do the data files (YAML, SQL,
templates) in a module's folder that it names in a string.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from pipeline.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
DATA_SUFFIXES = (".yaml", ".sql", ".html", ".css", ".js")


def _path(module: str) -> Path | None:
    """The project file of a dotted module, or None for somebody else's."""
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def parsed(path: Path) -> ast.Module:
    """A source of this project. Raises InputError, naming file and line, where it is no Python."""
    try:
        return ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise no_python(error, path) from None


def no_python(error: SyntaxError, path: Path) -> InputError:
    """What the parser says of a source, as an error that names file and line."""
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return InputError(f"{name}: line {error.lineno}: {error.msg}")


@cache
def _direct(path: Path) -> frozenset[Path]:
    """Project files that `path` imports, and data files that it names as string literals beside it."""
    found: set[Path] = set()
    for node in ast.walk(parsed(path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(DATA_SUFFIXES):
            found |= {hit for hit in path.parent.rglob(Path(node.value).name) if hit.is_file()}
        for name in names:
            parts = name.split(".")
            if parts[0] in ("pipeline", "stages"):
                hits = (_path(".".join(parts[: i + 1])) for i in range(len(parts)))
                found |= {hit for hit in hits if hit is not None}
    return frozenset(found)


def closure(*modules: str) -> list[Path]:
    """Files of the project that the modules need, themselves included; relative to the root, sorted.

    Raises ModuleNotFoundError where a name is no module of this project.
    """
    todo: list[Path] = []
    for module in modules:
        path = _path(module)
        if path is None:
            raise ModuleNotFoundError(f"{module}: no module of this project")
        todo += [path, *(_path(parent) or path for parent in _parents(module))]
    seen: set[Path] = set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        if path.suffix == ".py":
            todo.extend(_direct(path))
    return sorted(path.relative_to(ROOT) for path in seen)


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]
