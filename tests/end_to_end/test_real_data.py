"""The stages on the open demo data, from the raw files to a table, as `python -m stages.NAME`."""

import json
import re
import shutil
import subprocess
import sys

import polars as pl
import pytest
import yaml

from tests.support.inprocess import DATA_STAGES

AGGREGATES = ["evaluate", "cost", "robustness", "reliance", "gain", "known", "compare", "fairness", "report"]


@pytest.mark.real_data
def test_the_stages_run_on_the_open_demo(root, demo_data, tmp_path):
    for name in ("pipeline", "stages"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)  # the page tells the version
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["scale"] = "tiny"
    params["data"]["mimiciv"] = str(demo_data / "mimic-iv-demo")
    params["data"]["mimic_cxr"] = str(demo_data / "mimic-cxr-jpg-demo")
    params["splits"]["stratify"] = True
    params["grid"] = {"strategies": ["late_fusion"], "tasks": ["mortality"], "ensembles": []}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    for stage in [*DATA_STAGES, "audit", "tune", "train late_fusion", "probe late_fusion", *AGGREGATES]:
        command = [sys.executable, "-m", f"stages.{stage.split()[0]}", *stage.split()[1:]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{stage}\n{done.stderr}"

    assert pl.read_csv(tmp_path / "data/cohort/attrition.csv")["stays"].to_list()[-1] == 53
    stays = pl.read_parquet(tmp_path / "data/cohort/stays.parquet")
    assert (stays.height, stays["has_cxr"].sum()) == (53, 36)
    assert all(check["passed"] for check in json.loads((tmp_path / "reports/audit.json").read_text())["checks"])
    page = (tmp_path / "reports/index.html").read_text()
    assert "DEMO" in page
    assert "SYNTHETIC" not in page
    assert re.search("too small to tell", page, re.IGNORECASE)
    ids = stays["stay_id"].cast(pl.String).to_list() + stays["subject_id"].cast(pl.String).to_list()
    text = "".join(path.read_text() for path in (tmp_path / "reports").rglob("*.*") if path.is_file())
    assert not [i for i in ids if i in text], "a patient's id stands in a report"
