"""The import closure: what a module needs, and no more."""

import pytest

from pipeline.closure import closure


def needs(*modules):
    return {path.as_posix() for path in closure(*modules)}


def test_it_follows_imports_also_inside_of_functions_and_finds_data_files():
    files = needs("pipeline.tasks")
    assert {
        "pipeline/tasks.py",
        "pipeline/errors.py",
        "pipeline/mimic/phenotypes.yaml",
        "pipeline/__init__.py",
    } <= files
    assert "pipeline/training/loop.py" in needs("pipeline.training.executors")  # imported inside of a function


def test_a_strategy_needs_its_own_file_and_not_its_neighbours():
    files = needs("pipeline.training.run", "pipeline.strategies.lstm")
    assert "pipeline/strategies/lstm.py" in files
    assert "pipeline/strategies/transformer.py" not in files
    assert not [file for file in files if file.startswith(("stages/", "pipeline/evaluation", "pipeline/synthetic"))]


def test_an_unknown_module_is_an_error():
    with pytest.raises(ModuleNotFoundError, match=r"pipeline\.nothing"):
        closure("pipeline.nothing")


def test_it_follows_relative_imports(tmp_path, monkeypatch):
    """A third party's strategy may write `from .encoders import ...`: a change there must count for its runs."""
    folder = tmp_path / "pipeline/strategies"
    folder.mkdir(parents=True)
    for name in ("__init__", "encoders", "interface", "new"):
        (folder / f"{name}.py").write_text("")
    (tmp_path / "pipeline/__init__.py").write_text("")
    (tmp_path / "pipeline/tasks.py").write_text("")
    (folder / "new.py").write_text(
        "from .encoders import ImageEncoder\nfrom . import interface\nfrom ..tasks import Task\n"
    )
    monkeypatch.setattr("pipeline.closure.ROOT", tmp_path)
    assert needs("pipeline.strategies.new") == {
        "pipeline/__init__.py",
        "pipeline/tasks.py",
        *(f"pipeline/strategies/{name}.py" for name in ("__init__", "encoders", "interface", "new")),
    }
