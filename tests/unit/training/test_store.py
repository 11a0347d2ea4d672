"""The run store: what a run is filed under, and where."""

import dataclasses
import subprocess
import sys

import pytest

from pipeline import files
from pipeline.closure import closure
from pipeline.training.store import Store, code_files, data_fingerprint, work_folder
from tests.support.made_up_data import fabricate
from tests.support.runs import grid
from tests.support.small import ENCODERS


def test_a_run_is_filed_under_what_it_is_a_function_of(data, tmp_path, training):
    store = Store(tmp_path, "data")
    spec = grid(training)[0]
    folder = store.folder(spec)
    assert store.folder(dataclasses.replace(spec, hyper={"lr": 0.1})) != folder
    assert store.folder(dataclasses.replace(spec, seed=1)) != folder
    assert store.folder(dataclasses.replace(spec, encoders=dataclasses.replace(ENCODERS, width=16))) != folder
    assert Store(tmp_path, "other data").folder(spec) != folder
    often = dataclasses.replace(training, checkpoint_seconds=99.0)
    assert store.folder(grid(often)[0]) == folder


def test_the_data_fingerprint_sees_every_packed_file(tmp_path):
    from pipeline.data.tensors import FILES

    data = fabricate(tmp_path, n=40)
    before = data_fingerprint(data)
    for name in FILES:
        content = (data / name).read_bytes()
        (data / name).write_bytes(content + b"x")
        assert data_fingerprint(data) != before, name
        (data / name).write_bytes(content)
    assert data_fingerprint(data) == before


def test_copies_that_dvc_makes_find_the_projects_run_store(tmp_path, monkeypatch):
    monkeypatch.delenv("FUSION_WORK", raising=False)
    copy = tmp_path / "project/.dvc/tmp/exps/tmp1234"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert work_folder() == tmp_path / "project/work"
    monkeypatch.chdir(tmp_path / "project")
    assert work_folder() == tmp_path / "project/work"
    monkeypatch.setenv("FUSION_WORK", str(tmp_path / "elsewhere"))
    assert work_folder() == tmp_path / "elsewhere"


def test_every_file_that_a_run_needs_is_in_its_fingerprint_but_those_that_cannot_change_a_result(monkeypatch):
    digest, sources = files.sha256, code_files.__wrapped__
    before = sources("late_fusion")
    unseen = set()
    for path in closure("pipeline.training.run", "pipeline.strategies.late_fusion"):
        monkeypatch.setattr(files, "sha256", lambda p, path=path: "x" if str(p).endswith(f"/{path}") else digest(p))
        if sources("late_fusion") == before:
            unseen.add(path.as_posix())
    names = ("strict", "errors", "files", "closure", "owners", "work_folder")
    training = ("claim", "grid", "machine", "store")
    params = {path for path in unseen if path.startswith("pipeline/params/")}
    assert unseen - params <= {f"pipeline/{name}.py" for name in (*names, *(f"training/{name}" for name in training))}
    assert "pipeline/modelling/registry.py" not in unseen


def test_the_file_of_a_wrapped_strategy_counts_and_that_of_another_one_does_not(monkeypatch, tmp_path, training):
    wrapping = {"strategy": "climd", "hyper": {"lr": 0.001, "base": "smil", "base_hyper": {}}}
    spec, filed, digest = dataclasses.replace(grid(training)[0], **wrapping), Store(tmp_path, "data"), files.sha256
    before = filed.name(spec)
    for base, counts in (("smil", True), ("drfuse", False)):
        changed = f"pipeline/strategies/{base}.py"
        monkeypatch.setattr(files, "sha256", lambda p, end=changed: "x" if str(p).endswith(end) else digest(p))
        code_files.cache_clear()
        assert (filed.name(spec) != before) == counts
    monkeypatch.undo()
    code_files.cache_clear()
    assert filed.name(spec) == before
    assert filed.name(dataclasses.replace(spec, hyper=spec.hyper | {"base": "shaspec"})) != before


def test_pretrained_weights_count_by_content_and_not_by_path(tmp_path, training):
    def folder(name):
        chosen = dataclasses.replace(training, pretrained=str(tmp_path / name))
        return Store(tmp_path / "work", "data").folder(grid(chosen)[0])

    (tmp_path / "a.pth").write_bytes(b"weights")
    (tmp_path / "b.pth").write_bytes(b"weights")
    before = folder("a.pth")
    assert folder("b.pth") == before
    (tmp_path / "a.pth").write_bytes(b"other weights")
    assert folder("a.pth") != before


def test_what_finds_runs_in_the_store_does_without_torch(root):
    """A cell whose runs are all made, and the parent of a pool: torch alone takes seconds to import."""
    code = "import sys, stages.train, pipeline.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_versions_of_packages_are_read_once_however_many_runs_are_named(tmp_path, training, monkeypatch):
    """They were what a name cost: 5 ms, of 2,000 runs ten seconds, again and again."""
    store, (first, second) = Store(tmp_path, "data"), grid(training)
    store.name(first)
    monkeypatch.setattr("pipeline.training.store.version", lambda name: pytest.fail(f"{name} is looked up again"))
    assert store.name(second) != store.name(first)
