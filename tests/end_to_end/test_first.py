"""`python -m pipeline.first` in a clone: a page and a result, nothing that git sees, and all made the second time."""

import csv
import sys

import pytest

from pipeline.presentation.text import number
from tests.end_to_end.project import call, commit, copy_project

pytestmark = pytest.mark.slow


def test_a_first_result_leaves_the_project_as_it_was(root, tmp_path):
    copy_project(root, tmp_path)
    call(tmp_path, "git", "init", "-q", "-b", "main")
    commit(tmp_path, "the project")
    once = call(tmp_path, sys.executable, "-m", "pipeline.first").splitlines()
    assert call(tmp_path, "git", "status", "--porcelain") == ""
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "reports").exists()
    page = tmp_path / "work/first/reports/index.html"
    assert once[-1] == f"page: {page}"
    assert "SYNTHETIC" in page.read_text()
    with (tmp_path / "work/first/reports/tables/results.csv").open() as file:
        (row,) = (
            row
            for row in csv.DictReader(file)
            if (row["strategy"], row["eval_cohort"], row["part"], row["metric"])
            == ("late_fusion", "base", "test", "auroc")
        )
    assert once[-3].startswith("mortality, base cohort, ")
    assert f"AUROC late_fusion {number(float(row['value']))}, transformer " in once[-3]
    again = call(tmp_path, sys.executable, "-m", "pipeline.first").splitlines()
    assert again[-3:] == once[-3:]
    assert all(line.endswith(": made already") for line in again[1:-3])
    assert len(again) == len(once)
