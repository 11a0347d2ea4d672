"""A strategy of a test's own among those in the folder."""

import sys
import types

import pytest

from pipeline.modelling import registry


@pytest.fixture
def planted(monkeypatch):
    """Makes a class the one of pipeline/strategies/planted.py."""

    def plant(cls):
        module = types.ModuleType("pipeline.strategies.planted")
        monkeypatch.setattr(cls, "__module__", module.__name__)
        module.Planted = cls
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(registry, "names", lambda: ["late_fusion", "planted"])

    return plant
