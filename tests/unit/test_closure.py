"""The import closure: what a module needs, and no more."""

import pytest

from pipeline.closure import closure, parsed
from pipeline.errors import InputError
from pipeline.modelling.cards import read_card
from pipeline.modelling.registry import strategy_class


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
    """A third party's strategy may write `from ..modelling.encoders import ...`: a change there must count for it."""
    files = {
        *(f"pipeline/{name}.py" for name in ("__init__", "tasks", "strategies/__init__", "strategies/other")),
        *(f"pipeline/modelling/{name}.py" for name in ("__init__", "encoders", "interface")),
        "pipeline/strategies/new.py",
    }
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    (tmp_path / "pipeline/strategies/new.py").write_text(
        "from ..modelling.encoders import ImageEncoder\nfrom ..modelling import interface\n"
        "from ..tasks import Task\nfrom . import other\n"
    )
    monkeypatch.setattr("pipeline.closure.ROOT", tmp_path)
    assert needs("pipeline.strategies.new") == files


def test_a_syntax_error_is_named_with_file_and_line(tmp_path, monkeypatch):
    path = tmp_path / "broken.py"
    path.write_text('"""broken: a strategy."""\n\nx = (\n')
    with pytest.raises(InputError, match=rf"^{path}: line 3: '\(' was never closed$"):
        parsed(path)
    monkeypatch.setattr("pipeline.closure.ROOT", tmp_path)
    with pytest.raises(InputError, match=r"^broken\.py: line 3: "):
        parsed(path)
    monkeypatch.setattr("pipeline.modelling.cards.STRATEGIES", tmp_path)
    with pytest.raises(InputError, match=r"^broken\.py: line 3: "):
        read_card("broken")
    monkeypatch.setattr("pipeline.modelling.registry.STRATEGIES", tmp_path)
    monkeypatch.setattr("pipeline.strategies.__path__", [str(tmp_path)])
    with pytest.raises(InputError, match=r"^broken\.py: line 3: "):
        strategy_class("broken")
