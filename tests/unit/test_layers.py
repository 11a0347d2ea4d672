"""Arrows run down: no room of the house imports one that stands above it, or beside it."""

import ast
import re

import pytest

from pipeline.closure import ROOT

# From the ground up; rooms of one line stand side by side. The ground is what lies in pipeline/ and is not named,
# and pipeline.params.
FLOORS = [
    ["pipeline.mimic", "pipeline.synthetic", "pipeline.modelling", "pipeline.estimation", "pipeline.presentation"],
    ["pipeline.data", "pipeline.embedding", "pipeline.strategies", "pipeline.variants", "pipeline.exporting"],
    ["pipeline.training", "pipeline.cost", "pipeline.power", "pipeline.export"],
    ["pipeline.timing"],
    ["pipeline.evaluation", "pipeline.check", "pipeline.plan", "pipeline.work"],
    ["pipeline.ensembles", "pipeline.forgetting", "pipeline.prediction"],
    ["pipeline.predict"],
    [f"pipeline.questions.{name}" for name in ("when", "which", "robust", "fair")],
    ["pipeline.questions.known"],  # judges what `when` has found
    ["pipeline.page"],
    ["pipeline.results", "pipeline.first"],
    ["stages"],
]
HEIGHT = {room: height for height, rooms in enumerate(FLOORS, 1) for room in rooms}
FILES = {
    path: ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(path.relative_to(ROOT) for top in ("pipeline", "stages") for path in (ROOT / top).rglob("*.py"))
}


def room(module: str) -> str:
    """The room that a module stands in; the ground is one."""
    return next((name for name in HEIGHT if module == name or module.startswith(f"{name}.")), "pipeline")


def imported(source: str) -> set[str]:
    """Modules of the project that a source imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import hides its room"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("pipeline", "stages")}


def against_the_arrows(module: str, source: str) -> list[str]:
    """What it imports that is not of its own room and not of a lower floor."""
    own = room(module)
    return sorted(
        name for name in imported(source) if room(name) != own and HEIGHT.get(room(name), 0) >= HEIGHT.get(own, 0)
    )


@pytest.mark.parametrize("path", FILES, ids=str)
def test_nothing_imports_what_stands_above_it(path):
    assert against_the_arrows(FILES[path], (ROOT / path).read_text()) == []


def test_an_arrow_that_runs_up_or_aside_is_seen():
    up, aside = "import pipeline.training.loop", "def f():\n    from pipeline.questions.when import gain"
    assert against_the_arrows("pipeline.modelling.checks", up) == ["pipeline.training.loop"]
    assert against_the_arrows("pipeline.questions.fair.text", aside) == ["pipeline.questions.when.gain"]
    assert against_the_arrows("pipeline.files", "from pipeline import mimic") == ["pipeline.mimic"]
    assert against_the_arrows("pipeline.questions.known.known", aside) == []


def test_every_folder_stands_on_a_floor():
    rooms = {".".join(path.parts[:-1]) for path in FILES} - {"pipeline", "pipeline.params", "pipeline.questions"}
    assert {name for name in rooms if room(name) == "pipeline"} == set()
    assert not [
        name
        for name in HEIGHT
        if not (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()
        and not (ROOT / name.replace(".", "/")).is_dir()
    ]


def test_statistics_are_arrays_in_arrays_out():
    """No file is read or written in estimation/, and none in presentation/."""
    for path in (path for path in FILES if path.parts[1] in ("estimation", "presentation")):
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            assert not re.match(r"open$|Path$|read_|scan_|write_", name), f"{path}: {name}"
