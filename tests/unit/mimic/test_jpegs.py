"""Where JPEGs lie, and what shows that one of them is another file than it was."""

import os
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.mimic.jpegs import release_folder, state_of, with_path


def test_the_manifest_names_the_folder(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.json: not found"):
        release_folder(tmp_path / "manifest.json")
    (tmp_path / "manifest.json").write_text('{"mimic_cxr": {"root": "some/where"}}', encoding="utf-8")
    assert release_folder(tmp_path / "manifest.json") == Path("some/where")


def test_the_path_of_an_image_is_that_of_mimic_cxr_jpg():
    cxr = pl.DataFrame(
        {"subject_id": [10_000_032] * 2, "study_id": [50_414_267] * 2, "dicom_id": ["a", "b"], "rank": [1, 2]}
    )
    assert with_path(cxr)["path"].to_list() == ["files/p10/p10000032/s50414267/a.jpg"]
    assert with_path(cxr, 2)["dicom_id"].to_list() == ["a", "b"]


PATHS = ["files/a.jpg", "files/b.jpg"]


@pytest.fixture
def there(tmp_path):
    """Two files of a minute ago."""
    (tmp_path / "files").mkdir()
    for path in PATHS:
        (tmp_path / path).write_bytes(b"12345")
        os.utime(tmp_path / path, (1_700_000_000, 1_700_000_000))
    return tmp_path


def restored(path):
    """The same bytes of the same time, as `cp -p` puts them back."""
    path.write_bytes(b"12345")
    os.utime(path, (1_700_000_000, 1_700_000_000))


def test_a_state_stays_while_the_files_do_and_returns_with_them(there):
    before = state_of(there, PATHS)
    assert (before["images"], before["there"]) == (2, 2)
    assert state_of(there, PATHS[::-1]) == before
    (there / PATHS[1]).unlink()
    absent = state_of(there, PATHS)
    assert absent["there"] == 1
    assert absent["sha256"] != before["sha256"]
    restored(there / PATHS[1])
    assert state_of(there, PATHS) == before


def truncated(path):
    path.write_bytes(b"123")
    os.utime(path, (1_700_000_000, 1_700_000_000))


def other_bytes(path):
    path.write_bytes(b"54321")


def linked(path):
    restored(path.with_name("elsewhere"))
    path.unlink()
    path.symlink_to("elsewhere")


def into_a_loop(path):
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize("change", [truncated, other_bytes, linked, into_a_loop])
def test_another_size_time_or_kind_of_file_is_another_state(there, change):
    before = state_of(there, PATHS)
    change(there / PATHS[0])
    assert state_of(there, PATHS)["sha256"] != before["sha256"]
