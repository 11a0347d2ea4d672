"""dvc.yaml says what the stages need: code by import closure, params by what they read; outputs stay private."""

import ast
import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from _ruamel_yaml import CParser
from dvc.repo import Repo as Project
from ruamel.yaml import YAML

from pipeline.closure import ROOT, closure
from pipeline.data.audit import read_artefacts
from pipeline.data.tensors import FILES
from pipeline.mimic.schema import TABLES
from pipeline.modelling.registry import names
from pipeline.params import load
from stages.common import shared_code

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
CODE = ("pipeline", "stages")
READ_BY = re.compile(r"^# Read by: (.*)\n(\w+):", re.MULTILINE)


def script(stage: str) -> Path:
    return ROOT / "stages" / f"{stage}.py"


def code_deps(stage: str) -> list[str]:
    """With the code that data stand for: data/common.json for what cells share, a cell's runs for all that it needs."""
    deps = STAGES[stage]["deps"]
    found = [dep for dep in deps if dep.split("/")[0] in CODE]
    if "data/common.json" in deps:
        found += [path.as_posix() for path in shared_code()]
    return found + (code_deps("train") if "data/runs/${item.strategy}" in deps else [])


def needed(stage: str, strategy: str = "late_fusion") -> set[str]:
    """Files that the stage's code needs; a train cell also needs its own strategy's, `cost` and `tune` those of all."""
    modules = [f"stages.{stage}"]
    if stage in ("cost", "tune"):
        modules += [f"pipeline.strategies.{name}" for name in names()]
    if stage == "common":
        return {path.as_posix() for path in (*closure(*modules), *shared_code())}
    if "${item.strategy}" in STAGES[stage]["cmd"]:
        modules.append(f"pipeline.strategies.{strategy}")
    return {path.as_posix() for path in closure(*modules)}


def test_dvc_reads_yaml_with_libyaml():
    """Which it does anew for every stage, in pure Python for half its time: `dvc status` then takes twice as long."""
    assert YAML(typ="safe").Parser is CParser  # dvc.utils.serialize


def covers(dep: str, file: str) -> bool:
    return file == dep or file.startswith(dep + "/")


def test_every_script_is_a_stage_and_runs_as_a_module():
    scripts = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert scripts == set(STAGES)
    for name, stage in STAGES.items():
        assert re.fullmatch(rf"python -m stages\.{name}( \$\{{item\.\w+\}})*", stage["cmd"]), name


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_are_the_import_closure(stage):
    """The cells of a matrix share their list: it holds what any of them needs. data/common.json may hold more.

    A cell's runs stand for all the code that they are filed under: what a probe leaves of it is let be.
    """
    unused = set(code_deps(stage))
    assert len(unused) == len(code_deps(stage))
    if stage in ("probe", "tune"):
        unused &= set(STAGES[stage]["deps"])
    for strategy in names() if "${item.strategy}" in STAGES[stage]["cmd"] else [""]:
        deps = {dep: dep.replace("${item.strategy}", strategy) for dep in code_deps(stage)}
        files = needed(stage, strategy)
        missing = sorted(file for file in files if not any(covers(dep, file) for dep in deps.values()))
        assert not missing, f"{stage}: deps lack {missing}"
        unused -= {dep for dep, path in deps.items() if any(covers(path, file) for file in files)}
    assert not unused, f"{stage}: deps not needed {sorted(unused)}"


def test_a_folder_is_a_dep_where_a_stage_needs_all_of_it():
    for stage in STAGES:
        for folder in (ROOT / dep for dep in STAGES[stage]["deps"] if dep.split("/")[0] in CODE):
            files = {path.relative_to(ROOT).as_posix() for path in folder.rglob("*.py") if folder.is_dir()}
            assert files <= needed(stage), stage


def test_stages_stand_in_the_order_in_which_data_flow_each_with_its_line():
    made: set[str] = set()
    for name, stage in STAGES.items():
        assert len(stage["desc"]) <= 110, name
        assert "\n" not in stage["desc"], name
        later = {path for other in STAGES.values() for out in other["outs"] for path in out} - made
        for dep in stage["deps"]:
            assert not [path for path in later if covers(dep, path) or covers(path, dep)], f"{name}: {dep}"
        made |= {path for out in stage["outs"] for path in out}


def test_there_is_room_for_ten_more_strategies():
    """DVC's own cost grows with the square of the stages: at most about 100."""
    matrices = {name: list(stage["matrix"]) for name, stage in STAGES.items() if "matrix" in stage}
    grids = {"train": ["strategy"], "probe": ["strategy"]}
    assert matrices == {"watch": ["what"], "embed": ["encoder"], **grids}  # `watch`: of one, or of none
    assert len(STAGES) - len(grids) + 32 * len(grids) < 100


def params_read(stage: str) -> set[str]:
    """Keys in calls of read(...): literals, and f-strings whose holes stand for a matrix item."""
    found = set()
    for node in ast.walk(ast.parse(script(stage).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "read":
            for argument in node.args:
                if isinstance(argument, ast.Starred):  # a constant of the module
                    found |= set(getattr(importlib.import_module(f"stages.{stage}"), ast.unparse(argument.value)))
                    continue
                parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
                key = "".join(part.value if isinstance(part, ast.Constant) else "${item.strategy}" for part in parts)
                found.add(key)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_those_that_the_stage_reads(stage):
    """data/common.json stands for those that all cells share."""
    keys = list(STAGES[stage].get("params", []))
    if "data/common.json" in STAGES[stage]["deps"]:
        keys += STAGES["common"]["params"]
    assert len(set(keys)) == len(keys)
    assert {key.replace("scales.${scale}", "scales") for key in keys} == params_read(stage)


def readers(*keys: str) -> set[str]:
    """Stages that declare a key or one below it; the report, which shows all params, left out."""
    declared = {stage: content.get("params", []) for stage, content in STAGES.items() if stage != "report"}
    below = tuple(f"{key}." for key in keys)
    return {stage for stage, found in declared.items() for each in found if each in keys or each.startswith(below)}


def test_params_yaml_says_above_each_block_which_stages_read_it():
    """`(...)` and what follows a semicolon are words."""
    text = (ROOT / "params.yaml").read_text()
    told = {key: set(re.findall(r"\w+", re.sub(r"[(;].*", "", line))) for line, key in READ_BY.findall(text)}
    blocks = set(yaml.safe_load(text))
    assert set(told) == blocks - {"scales"}
    assert told == {key: readers(key) for key in told}
    lines = re.findall(r"^#   (\w+) +by (.*)$", text, re.MULTILINE)
    parts = {key: set(re.findall(r"\w+", line)) for key, line in lines}
    scales = yaml.safe_load(text)["scales"]
    assert set(parts) == set(scales["demo"])
    for key, found in parts.items():
        assert found == readers(f"scales.${{scale}}.{key}", *(f"scales.{scale}.{key}" for scale in scales)), key


@pytest.mark.parametrize("stage", STAGES)
def test_patient_level_outputs_are_private_and_reports_are_in_git(stage):
    outs = [out for kind in ("outs", "metrics", "plots") for out in STAGES[stage].get(kind, [])]
    assert outs
    for out in outs:
        assert isinstance(out, dict), f"{stage}: {out} has neither push: false nor cache: false"
        ((path, options),) = out.items()
        if path.startswith("data/"):
            assert options.get("push") is False, f"{path}: patient-level, needs push: false"
        else:
            assert path.startswith("reports/")
            assert options.get("cache") is False, f"{path}: reports are in git, needs cache: false"


def test_only_the_manifest_depends_on_the_raw_data_and_nothing_on_the_jpegs():
    """`paths`, which looks whether they are there, depends on the built-in hospital alone, which always is."""
    for name, stage in STAGES.items():
        raw = [dep for dep in stage["deps"] if "${data." in dep or dep.startswith("data/raw")]
        assert bool(raw) == (name in ("paths", "manifest")), name
        if name == "paths":
            assert raw == ["data/raw/synthetic/mimic-cxr-jpg/mimic-cxr-2.0.0-chexpert.csv.gz"]
        assert not [dep for dep in stage["deps"] if "files" in dep.split("/") or dep.endswith("${data.mimic_cxr}")]


def test_no_stage_depends_on_a_table_that_may_be_absent():
    """Of an absent dependency DVC says `[Errno 2]`; `paths` looks for these, and the manifest depends on its list."""
    optional = [table.source for table in TABLES.values() if not table.required]
    assert optional
    for name, stage in STAGES.items():
        assert not [dep for dep in stage["deps"] for source in optional if "${data." in dep and source in dep], name
    assert "data/given/tables.json" in STAGES["manifest"]["deps"]


def test_watches_are_of_what_images_skips_and_the_images_depend_on_their_folder_alone():
    """The folder is there without any, since `paths` writes into it."""
    watch, (out,) = STAGES["watch"], STAGES["watch"]["outs"]
    assert watch["matrix"] == {"what": "${images.skip}"}
    assert watch["always_changed"] is True
    assert [path.rpartition("/")[0] for path in out] == ["data/given"]
    assert [dep for dep in STAGES["images"]["deps"] if dep.startswith("data/given")] == ["data/given"]
    assert load(ROOT / "params.yaml").images.skip == ()  # `dvc status` of the project as it comes has nothing to say


def test_nothing_but_a_report_on_the_planted_truth_reads_it():
    """`synthesize` alone makes it; a stage that depends on it, or on a folder above it, leaves reports and no data."""
    for name, stage in STAGES.items():
        outs = [path for out in stage["outs"] for path in out]
        assert ("data/truth" in outs) == (name == "synthesize")
        if any(
            covers(dep.rstrip("/"), "data/truth/planted.parquet") or dep.startswith("data/truth")
            for dep in stage["deps"]
        ):
            assert all(out.startswith("reports/") for out in outs), name
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "stages").glob("*.py")]:
        if path.parent.name not in ("synthetic", "known") and path.name != "synthesize.py":
            text = path.read_text()
            assert "data/truth" not in text, path
            assert "planted.parquet" not in text, path


def data_deps(stage: dict[str, Any]) -> set[str]:
    return {dep for dep in stage["deps"] if dep.startswith("data/")}


def test_every_train_cell_depends_on_the_audit():
    """Every cell of the matrix, as DVC resolves it; a probe, which trains what is not in the run store, on its cell."""
    stages = Project(str(ROOT)).index.stages
    trains = ("python -m stages.train ", "python -m stages.probe ")
    cells = {stage.addressing: {dep.def_path for dep in stage.deps} for stage in stages if stage.cmd.startswith(trains)}
    strategies = load(ROOT / "params.yaml").grid.strategies
    assert set(cells) == {f"{stage}@{strategy}" for stage in ("train", "probe") for strategy in strategies}
    for name, deps in cells.items():
        stage, strategy = name.split("@")
        assert ("data/audit.ok" if stage == "train" else f"data/runs/{strategy}") in deps, name
    assert [name for name, stage in STAGES.items() for out in stage["outs"] if "data/audit.ok" in out] == ["audit"]


def test_the_audit_depends_on_all_data_that_models_read():
    read = data_deps(STAGES["train"]) | data_deps(STAGES["common"])
    of_these = {"data/audit.ok", "data/common.json", "data/tuned/${item.strategy}.yaml"}
    of_these |= {"data/embeddings"}  # of the audited images, by their ids
    assert not read - of_these - data_deps(STAGES["audit"])


def test_what_cells_share_covers_all_data_that_models_read():
    deps = data_deps(STAGES["common"])
    assert [name for name in FILES if not any(covers(dep, f"data/{name}") for dep in deps)] == []


def test_the_audit_depends_on_all_that_it_reads(monkeypatch):
    """Opened by its loader, below data/."""
    read: list[str] = []

    def seen(path: Path, *_: object, **__: object) -> pl.DataFrame:
        read.append(Path(path).as_posix())
        return pl.DataFrame(schema=["stay_id", "charttime", "itemid", "value", "valuenum"])

    monkeypatch.setattr(pl, "read_parquet", seen)
    monkeypatch.setattr(pl, "scan_parquet", lambda path: seen(path).lazy())
    monkeypatch.setattr(np, "load", seen)
    monkeypatch.setattr(Path, "read_text", lambda path, **_: (read.append(path.as_posix()), "{}")[1])
    read_artefacts(Path("data"), (), pl.DataFrame(), 0, 48)
    deps = data_deps(STAGES["audit"])
    assert sorted(file for file in read if not any(covers(dep, file) for dep in deps)) == []
    assert sorted(dep for dep in deps if not any(covers(dep, file) for file in read)) == []


def test_nothing_that_makes_splits_masks_or_inputs_depends_on_the_labels_but_the_splits_that_stratify():
    """A mask or a series cannot follow what its stage does not read."""
    wrong = [
        name
        for name in ("cohort", "series", "images", "masks", "statistics")
        if "data/cohort/labels.parquet" in STAGES[name]["deps"]
    ]
    assert wrong == []


def test_the_library_knows_neither_dvc_nor_the_stages():
    for path in (ROOT / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [m for m in modules if m.split(".")[0] in ("dvc", "dvclive", "stages")], path


def test_stage_scripts_are_short():
    for stage in STAGES:
        assert len(script(stage).read_text().splitlines()) <= 80, stage


def test_params_hold_every_strategy_and_are_in_block_style():
    assert set(names()) == set(load(ROOT / "params.yaml").strategies)
    for line in (ROOT / "params.yaml").read_text().splitlines():
        assert not re.match(r"[^#]*:\s*(\[(?!\])|\{(?!\}))", line), f"flow style: {line}"  # `[]`, `{}`: no other


def test_no_output_or_environment_is_tracked_by_git():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    wrong = [
        path for path in tracked if path.startswith(("data/", "work/", ".venv/")) or path.endswith((".lock", ".pyc"))
    ]
    assert wrong == ["dvc.lock"] or wrong == []


def test_every_encoder_that_is_asked_for_is_a_stage_and_training_depends_on_what_it_makes(tmp_path):
    """As DVC resolves it; without any there is none, and the folder is there for who depends on it."""
    assert not [stage for stage in Project(str(ROOT)).index.stages if stage.cmd.startswith("python -m stages.embed ")]
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["embedding"]["encoders"] = ["rad-dino", "mine"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    stages = {stage.name: stage for stage in Project.init(str(tmp_path), no_scm=True).index.stages}
    for name in ("rad-dino", "mine"):
        stage = stages[f"embed@{name}"]
        assert stage.cmd == f"python -m stages.embed {name}"
        assert f"encoders/{name}.yaml" in {dep.def_path for dep in stage.deps}
        assert [out.def_path for out in stage.outs] == [f"data/embeddings/{name}"]
    assert "data/embeddings" in {dep.def_path for dep in stages["common"].deps}
    assert [out.def_path for out in stages["encoders"].outs] == ["data/embeddings/cards.json"]
