"""Fixtures that tests of this folder share: made once, and not to be changed."""

import pytest

from pipeline import params
from tests.support.raw_tree import ingested


@pytest.fixture(scope="session")
def cohort(root):
    return params.load(root / "params.yaml").cohort


@pytest.fixture(scope="session")
def interim(tmp_path_factory):
    return ingested(tmp_path_factory.mktemp("raw"))
