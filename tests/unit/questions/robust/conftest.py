"""Fixtures that tests of this folder share."""

import pytest

from tests.support.made_up_probes import add_probes
from tests.support.made_up_runs import fabricate
from tests.support.robust import CARDS, SCALE, TASKS


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("fabricated")
    fabricate(root, SCALE, list(CARDS), TASKS, stays=700)
    add_probes(root, CARDS, TASKS)
    return root / "data"
