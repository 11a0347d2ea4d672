"""Bad input as a user meets it: a damaged folder, the stages' own `main`, and the line or count of docs/bad-input.md.

The table there is part of the tests: what it says of a case is what has to happen, to the letter.
"""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pipeline.closure import ROOT
from pipeline.disclosure import told
from pipeline.strict import read_yaml
from tests.stages.damage import AT_ONCE, COUNTED, GIGABYTES, JPEG, REFUSED, SAME, SAME_RESULTS, STAYS_COUNTED
from tests.support.raw_tree import raw_tree

STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
CHAIN = ("paths", "manifest", "ingest", "cohort", "labels", "series", "images")
ROWS = [
    [cell.strip() for cell in line.strip("| \n").split(" | ")]
    for line in (ROOT / "docs" / "bad-input.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| case", "|---"))
]
TABLE = {test.strip("`"): what for _, what, test in ROWS}  # test -> what happens


def run(*stages):
    """Run stages in this process; the words of the one that fails, or None."""
    for name in stages:
        try:
            importlib.import_module(f"stages.{name}").main()
        except SystemExit as end:
            return str(end.code)
    return None


def outputs(*stages):
    """The files and folders that stages leave, of dvc.yaml."""
    return [Path(path) for name in stages for out in STAGES[name]["outs"] for path in out]


def clear(*stages):
    """Remove what stages left, as DVC does before it runs them."""
    for path in outputs(*stages):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def files_in(*folders):
    """Bytes of all files below folders."""
    return {path: path.read_bytes() for folder in folders for path in Path(folder).rglob("*") if path.is_file()}


def count(file, key):
    """A number in a report, by dotted key; 0 where it is not there."""
    value = json.loads(Path("reports/data", f"{file}.json").read_text())
    for part in key.split("."):
        value = value.get(part, {})
    return value or 0


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """The hand-made tree with one radiograph, params that name it by relative paths, and what the stages made of it."""
    folder = tmp_path_factory.mktemp("hospital")
    raw_tree(folder)
    (folder / JPEG).parent.mkdir(parents=True)
    Image.linear_gradient("L").resize((300, 400)).save(folder / JPEG)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["scale"] = "tiny"
    params["data"] |= {"mimiciv": "iv", "mimic_cxr": "cxr", "accept_unlisted_release": True}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(*CHAIN) is None
    return folder


@pytest.fixture
def own(hospital, tmp_path, monkeypatch):
    """A copy of the hospital, as the working directory."""
    shutil.copytree(hospital, tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    return tmp_path / "own"


@pytest.mark.parametrize("case", REFUSED)
def test_refused(own, case):
    """One line, word for word, and nothing left behind by the stage that says it."""
    stage, damage = REFUSED[case]
    clear(stage)
    damage(own)
    line = run(*([] if case in AT_ONCE else CHAIN[: CHAIN.index(stage)]), stage)
    assert line is not None, "nothing was refused"
    assert f"`{line}`" == TABLE[f"test_refused[{case}]"]
    assert not [path for path in outputs(stage) if path.is_file() or (path.is_dir() and list(path.iterdir()))]
    assert not [path for path in own.rglob("*") if path.name.startswith(".") and path.name != ".locks"], (
        "scratch left behind"
    )


@pytest.mark.parametrize("case", COUNTED)
def test_counted(own, hospital, case, caplog):
    """The stages go on; the count is one more than it was, in the log and, as far as it may be told, in the report."""
    file, key, words, damage = COUNTED[case]
    assert f"`{file}.json`: `{key}`" == TABLE[f"test_counted[{case}]"]
    was = count(file, key)
    damage(own)
    caplog.set_level("INFO")
    caplog.clear()
    assert run(*CHAIN[: CHAIN.index(file) + 1]) is None
    assert count(file, key) == (told(was + 1) if case in STAYS_COUNTED else was + 1)
    assert words in caplog.text


@pytest.mark.parametrize("case", SAME)
def test_same(own, hospital, case):
    """Interim tables, byte for byte."""
    clear("ingest")
    SAME[case](own)
    assert run("manifest", "ingest") is None
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(hospital)
        expected = files_in("data/interim")
    assert files_in("data/interim") == expected


@pytest.mark.parametrize("case", SAME_RESULTS)
def test_same_results(own, hospital, case):
    """Cohort, labels, series and images, byte for byte."""
    clear(*CHAIN)
    SAME_RESULTS[case](own)
    assert run(*CHAIN) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(hospital)
        expected = files_in("data/cohort", "data/series", "data/images")
    assert files_in("data/cohort", "data/series", "data/images") == expected


@pytest.mark.parametrize("case", GIGABYTES)
def test_memory_follows_no_claim(own, case):
    """A megabyte of gz that unpacks to a gigabyte is refused in one line, with little memory."""
    GIGABYTES[case](own)
    code = (
        "import resource, sys; from stages.manifest import main\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    line, megabytes = done.stdout.splitlines()
    assert f"`{line}`" == TABLE[f"test_memory_follows_no_claim[{case}]"]
    assert int(megabytes) < 50


def test_a_refusal_is_one_line_and_status_1_in_a_shell(own):
    (own / "iv/icu/chartevents.csv.gz").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "stages.paths"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"`{done.stderr.strip()}`" == TABLE["test_refused[missing-table]"]


def test_the_table_in_docs_names_every_case_once_and_tests_that_exist():
    named = [test.strip("`") for _, _, test in ROWS]
    assert len(named) == len(set(named))
    cases = {"refused": REFUSED, "counted": COUNTED, "same": SAME, "same_results": SAME_RESULTS}
    cases["memory_follows_no_claim"] = GIGABYTES
    here = {f"test_{kind}[{case}]" for kind, every in cases.items() for case in every}
    functions = {
        node.name: node for node in ast.parse(Path(__file__).read_text()).body if isinstance(node, ast.FunctionDef)
    }
    plain = {name for name, node in functions.items() if name.startswith("test_") and not node.decorator_list}
    here |= plain - {"test_the_table_in_docs_names_every_case_once_and_tests_that_exist"}
    assert {name.partition("[")[0] for name in here} <= set(functions)
    assert here <= set(named), "a case is not in the table"
    for name in set(named) - here:
        file, _, function = name.partition("::")
        (path,) = (ROOT / "tests").rglob(file)
        tree = ast.parse(path.read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name
    assert all(re.fullmatch(r"`[^`]+`", test) for _, _, test in ROWS)
