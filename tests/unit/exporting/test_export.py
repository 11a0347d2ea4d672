"""The command: one line where it cannot, a whole folder or none, and nothing that git would take in."""

import contextlib
import subprocess
import sys
from unittest import mock

import pytest

from pipeline import export
from pipeline.closure import ROOT
from pipeline.exporting import medfuse


def call(data, *arguments):
    """The command beside `data`; what it ends with, or None."""
    own = ["export", "--data", str(data), "--params", str(ROOT / "params.yaml"), *map(str, arguments)]
    with mock.patch.object(sys, "argv", own):
        try:
            export.main()
        except SystemExit as end:
            return str(end.code)
    return None


@pytest.fixture
def repository(tmp_path):
    """A git repository that ignores one folder."""
    folder = tmp_path / "repository"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", folder], check=True)
    (folder / ".gitignore").write_text("/private/\n")
    return folder


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--out", "x"], "FORMAT: missing: one of meds, carebench, medfuse, croissant"),
        (["med", "--out", "x"], "FORMAT: med: not one of meds, carebench, medfuse, croissant; did you mean meds?"),
        (["medfuse"], "--out: missing; --help tells more"),
        (["carebench", "--out", "x", "--fold", "1"], "--fold: goes with meds or medfuse"),
        (["meds", "--out", "x", "--fold", "one"], "--fold: must be a number from 0, is one"),
        (["medfuse", "--out", "x", "--fold", "7"], "--fold: 7: not in {data}/splits.parquet, which has 0, 1, 2"),
        (["meds", "--out", "x"], "{data}/interim/patients.parquet: not found; make the data first: dvc repro audit"),
        (["croissant", "--out", "x"], "{data}/manifest.json: not found; the stage manifest writes it"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(packed, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    assert call(packed, *arguments) == f"export: error: {line.format(data=packed)}"
    assert list(tmp_path.iterdir()) == []


def test_data_that_did_not_pass_the_audit_are_not_exported(own, tmp_path):
    (own / "audit.ok").unlink()
    line = f"export: error: {own}/audit.ok: not found; make the data first: dvc repro audit"
    assert call(own, "carebench", "--out", tmp_path / "out") == line
    assert not (tmp_path / "out").exists()


def test_rules_that_cannot_be_read_are_named(own, tmp_path):
    (own / "series/rules.json").write_text('{"tier": "core"}')
    line = call(own, "carebench", "--out", tmp_path / "out")
    assert line == f"export: error: {own}/series/rules.json: cannot be read: series.lab_time: missing"


def test_series_of_another_tier_are_refused(own, tmp_path):
    rules = own / "series/rules.json"
    rules.write_text(rules.read_text().replace("core", "plus"))
    line = call(own, "medfuse", "--out", tmp_path / "out")
    assert line == f"export: error: {own}/series/values.npy: holds 27 variables, its tier has 84"


def test_a_folder_that_holds_something_stays_as_it_is(packed, tmp_path):
    (tmp_path / "mine").write_text("mine")
    line = f"export: error: --out: {tmp_path}: is there already; name a new folder"
    assert call(packed, "medfuse", "--out", tmp_path) == line
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_an_empty_folder_is_filled(packed, tmp_path):
    (tmp_path / "out").mkdir()
    assert call(packed, "medfuse", "--out", tmp_path / "out", "--fold", "2") is None
    assert (tmp_path / "out/phenotyping/train_listfile.csv").is_file()


@pytest.mark.parametrize("below", ["out", "reports/out"])
def test_git_does_not_take_it_in(packed, repository, below):
    line = f"the git repository {repository} would take it in; name a folder outside, or ignored"
    assert call(packed, "medfuse", "--out", repository / below) == f"export: error: --out: {repository / below}: {line}"
    assert sorted(path.name for path in repository.iterdir()) == [".git", ".gitignore"]


def test_a_link_into_a_repository_is_seen_through(packed, repository, tmp_path):
    (tmp_path / "link").symlink_to(repository)
    line = call(packed, "medfuse", "--out", tmp_path / "link/out")
    assert line is not None
    assert f"the git repository {repository} would take it in" in line


def test_what_git_ignores_is_a_place(packed, repository):
    assert call(packed, "medfuse", "--out", repository / "private/out") is None
    seen = subprocess.run(
        ["git", "-C", repository, "status", "--porcelain"], capture_output=True, text=True, check=True
    )
    assert seen.stdout == "?? .gitignore\n"


def test_without_git_no_repository_is_a_place(packed, repository, monkeypatch):
    monkeypatch.setenv("PATH", str(repository))
    line = call(packed, "medfuse", "--out", repository / "private/out")
    assert line is not None
    assert "would take it in" in line


def test_a_failure_leaves_nothing(packed, tmp_path, monkeypatch):
    calls = iter(range(5))

    def fails(*_):
        if next(calls, None) is None:
            raise RuntimeError("half way")
        return original(*_)

    original = medfuse.timeseries
    monkeypatch.setattr(medfuse, "timeseries", fails)
    with contextlib.suppress(RuntimeError):
        call(packed, "medfuse", "--out", tmp_path / "out")
    assert next(calls, None) is None
    assert list(tmp_path.iterdir()) == []


def test_help_tells_the_formats(capsys):
    with mock.patch.object(sys, "argv", ["export", "--help"]), contextlib.suppress(SystemExit):
        export.main()
    shown = capsys.readouterr().out
    assert "meds, carebench, medfuse, croissant" in shown
