"""The smallest pieces of tests/benchmarks/claims.py: a few workers, and what is made of their events."""

import pytest

from tests.benchmarks.claims import Event, measures, simulate, table


def test_every_run_is_made_once_and_with_a_worker_killed_all_are_made(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_LEASE", "60")
    found = simulate(runs=30, workers=4, mean=0.05, kill=0, folder=tmp_path / "a")
    assert (found.claims, found.twice, found.lost, found.again) == (30, 0, 0, [])
    monkeypatch.setenv("FUSION_LEASE", "2")
    found = simulate(runs=30, workers=4, mean=0.3, kill=1, folder=tmp_path / "b")
    assert found.claims >= 30
    assert len(found.again) <= 1  # what the killed one was at, if anything


def test_time_that_was_idle_and_work_that_was_wasted():
    told = [
        Event(0.0, 0, "starts", -1, 0.0),
        Event(0.0, 1, "starts", -1, 0.0),
        Event(0.0, 0, "claims", 7, 0.002),
        Event(2.0, 1, "claims", 8, 0.004),  # two of eight seconds idle
        Event(2.0, 1, "misses", 7, 0.001),
        Event(4.0, 0, "worked", 7, 0.0),
        Event(5.0, 0, "files", 7, 0.0),
        Event(5.0, 0, "claims", 9, 0.003),  # killed at 6
        Event(8.0, 1, "worked", 8, 0.0),
        Event(8.5, 1, "files", 8, 0.0),
        Event(9.0, 1, "claims", 9, 0.003),
        Event(10.0, 1, "worked", 9, 0.0),
        Event(10.5, 1, "files", 9, 0.0),
    ]
    found = measures(told, living=1, killed_at=6.0)
    assert (found.wall, found.claims, found.misses, found.twice, found.lost) == (10.5, 4, 1, 0, 0)
    assert found.again == [3.0]
    assert found.claim_median == pytest.approx(0.003)
    assert found.claim_worst == pytest.approx(0.004)
    assert found.filing_median == pytest.approx(0.5)
    assert found.idle == pytest.approx(1 - 6.5 / 9)
    assert found.wasted == pytest.approx(1 / (5 + 6.5 + 1.5))
    assert "| work that went into no result | 7.69 % |" in table({"it": found})
