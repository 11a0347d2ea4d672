"""Fixtures that tests of several folders share."""

import dataclasses

import pytest

from pipeline.params import Training, load
from pipeline.presentation import figures
from tests.support.made_up_data import fabricate


@pytest.fixture(scope="session")
def training(root) -> Training:
    return dataclasses.replace(load(root / "params.yaml").training, device="cpu", checkpoint_seconds=0.0)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("fabricated"), n=120)


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are composed and described, but empty, for who reads words alone: drawing is two thirds of a page."""
    monkeypatch.setattr(figures, "drawn", lambda figure: "<svg ></svg>")
