"""A worker that would file runs where the driver never looks refuses, and says in one line what differs."""

import dataclasses

import pytest

from pipeline.errors import InputError
from pipeline.training import expected, store
from pipeline.training.store import Store
from tests.support.runs import grid

REFUSED = "not the runs that this worker was started for: "


@pytest.fixture
def filed(tmp_path):
    return Store(tmp_path, "data")


@pytest.fixture
def specs(training):
    return grid(training, "gbm_image") + grid(training, "lstm")


def refusal(specs, where, digest):
    with pytest.raises(InputError) as refused:
        expected.agree(specs, where, digest)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_same_code_packages_params_and_data_agree(filed, specs):
    expected.agree(specs, filed, expected.expect(specs, filed))
    expected.agree(specs[::-1], filed, expected.expect(specs, filed))


def test_another_version_of_a_package_is_named(filed, specs, monkeypatch):
    digest = expected.expect(specs, filed)
    there = store.versions()
    monkeypatch.setattr(store, "versions", lambda: {**there, "torch": "1.0.0"})
    assert refusal(specs, filed, digest) == f"{REFUSED}torch is 1.0.0 here, {there['torch']} there"


def test_an_edited_file_is_named_and_only_where_its_strategy_is_asked_for(filed, specs, monkeypatch):
    digest, lstm = expected.expect(specs, filed), expected.expect(specs[-2:], filed)
    before = store.code_files("gbm_image")

    def edited(*names):
        return {**before, "pipeline/strategies/gbm_image.py": "other"} if names == ("gbm_image",) else code(*names)

    code = store.code_files
    monkeypatch.setattr(store, "code_files", edited)
    monkeypatch.setattr(expected, "code_files", edited)
    assert refusal(specs, filed, digest) == f"{REFUSED}pipeline/strategies/gbm_image.py differs"
    expected.agree(specs[-2:], filed, lstm)


def test_an_edited_file_is_named_where_it_is_wrapped(filed, specs, monkeypatch):
    around = [dataclasses.replace(specs[-1], strategy="climd", hyper={"base": name}) for name in ("smil", "drfuse")]
    digest, code = expected.expect(around, filed), store.code_files

    def edited(*names):
        return {path: "other" if path.endswith("/smil.py") else sha for path, sha in code(*names).items()}

    monkeypatch.setattr(store, "code_files", edited)
    monkeypatch.setattr(expected, "code_files", edited)
    assert refusal(around, filed, digest) == f"{REFUSED}pipeline/strategies/smil.py differs"
    expected.agree(around[1:], filed, expected.expect(around[1:], filed))


def test_other_data_and_other_params_are_named(filed, specs):
    digest = expected.expect(specs, filed)
    assert refusal(specs, Store(filed.work, "other"), digest) == f"{REFUSED}the packed data differ"
    faster = [dataclasses.replace(spec, max_epochs=3) for spec in specs]
    assert "max_epochs is 3 here, 4 there" in refusal(faster, filed, digest)
    assert refusal(specs[:-1], filed, digest) == (
        f"{REFUSED}not asked for here: 1, the first lstm mortality matched fold 0 seed 0 #1"
    )


def test_trials_of_one_name_are_runs_of_their_own_and_many_differences_are_cut_short(filed, training):
    (spec, _) = grid(training, "lstm")
    trials = [dataclasses.replace(spec, hyper={"lr": lr}) for lr in (0.1, 0.2)]
    digest = expected.expect(trials, filed)
    expected.agree(trials, filed, digest)
    others = [
        dataclasses.replace(trial, hyper={"lr": 0.5}, batch_size=3, patience=1, tier=f"tier {number}")
        for number, trial in enumerate(trials)
    ]
    assert refusal(others, filed, digest) == (
        f"{REFUSED}batch_size is 3 here, 16 there; hyper.lr is 0.5 here, 0.1 there; hyper.lr is 0.5 here, 0.2 there; "
        "and 3 more"
    )


def test_a_worker_with_another_run_store_says_so(filed, specs, tmp_path):
    digest = expected.expect(specs, filed)
    elsewhere = Store(tmp_path / "elsewhere", "other data")
    assert refusal(specs, elsewhere, digest) == (
        f"{elsewhere.work}/expected/{digest}.json: not found; FUSION_WORK must name the launcher's run store"
    )
