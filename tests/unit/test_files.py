"""Writing beside and renaming; equal bytes."""

import numpy as np
import polars as pl
import pytest

from pipeline import files


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text("old", path)
    with pytest.raises(ZeroDivisionError), files.atomic(path) as beside:
        beside.write_text(f"half, then {1 / 0}")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_sorted_rounded_and_never_nan(tmp_path):
    files.write_json({"b": 1 / 3, "a": [-1e-9, 2]}, tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    0.0,\n    2\n  ],\n  "b": 0.333333\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        files.write_json({"a": float("nan")}, tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()


def test_the_same_content_is_the_same_bytes(tmp_path):
    frame = pl.DataFrame({"a": range(1000), "b": np.linspace(0, 1, 1000), "c": ["x", None] * 500})
    for i in range(3):
        files.write_parquet(frame, tmp_path / f"{i}.parquet")
        files.write_csv(frame, tmp_path / f"{i}.csv")
    assert len({files.sha256(path) for path in tmp_path.glob("*.parquet")}) == 1
    assert len({files.sha256(path) for path in tmp_path.glob("*.csv")}) == 1


def test_no_text_in_a_csv_is_a_formula(tmp_path):
    texts = ["=1+1", "-x", "@b", "+c", "\t=d", "plain", None, "a=b"]
    files.write_csv(pl.DataFrame({"a": texts, "n": [-1, 2, 3, 4, 5, 6, 7, 8]}), tmp_path / "a.csv")
    read = pl.read_csv(tmp_path / "a.csv")
    assert read["a"].to_list() == ["'=1+1", "'-x", "'@b", "'+c", "'\t=d", "plain", None, "a=b"]
    assert read["n"].to_list() == [-1, 2, 3, 4, 5, 6, 7, 8]
