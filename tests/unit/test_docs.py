"""What the documents name is there, and what they say of params holds: files of the project, the index, defaults."""

import csv
import functools
import re

import yaml

from pipeline.modelling.cards import read_card

PATH = re.compile(r"`((?:pipeline|stages|tests)/[\w/]+\.\w+|\w+\.yaml)`")


def test_the_files_that_a_third_modality_would_touch_exist(root):
    text = (root / "docs/third-modality.md").read_text(encoding="utf-8")
    named = set(PATH.findall(text))
    assert {"dvc.yaml", "params.yaml", "pipeline/modelling/interface.py", "pipeline/data/batches.py"} <= named
    assert [name for name in sorted(named) if not (root / name).is_file()] == []
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`" in line]
    assert [row for row in rows if not PATH.findall(row.split("|")[2])] == []  # a row without a file


def test_the_index_of_the_documents_leads_to_files(root):
    links = re.findall(r"\]\(([^)]+)\)", (root / "docs/README.md").read_text(encoding="utf-8"))
    assert "third-modality.md" in links
    assert [link for link in links if not (root / "docs" / link).exists()] == []


def test_the_candidates_of_a_verdict_are_those_that_the_reading_names(root):
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    text = " ".join((root / "docs/reading-the-report.md").read_text(encoding="utf-8").split())
    strategies = params["grid"]["strategies"]
    record = [name for name in strategies if read_card(name).modalities == ("ehr",)]
    fusion = [name for name in params["verdicts"]["fusion"] if name in strategies][: len(record)]
    named = [" and ".join(f"`{name}`" for name in names) for names in (fusion, record)]
    assert f"{named[0]} by default, beside {named[1]}" in text


def test_what_is_to_be_copied_stands_on_one_line(root):
    broken = []
    for path in (*root.glob("*.md"), *(root / "docs").rglob("*.md")):
        text = re.sub("```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        broken += [(path.name, code) for code in re.findall("`([^`]+)`", text) if "\n" in code]
    assert broken == []


def test_tables_that_tell_tasks_apart_have_the_task_among_their_keys(root):
    rows = re.findall(
        r"\| `(reports/tables/\w+\.csv)` \| (.*)", (root / "docs/artefacts.md").read_text(encoding="utf-8")
    )
    keyed = {name: ", ".join(re.findall(r"\*\*(.+?)\*\*", text)).split(", ") for name, text in rows}
    there = {name: root / name for name in keyed if (root / name).is_file()}
    heads = {name: next(csv.reader(path.read_text(encoding="utf-8").splitlines())) for name, path in there.items()}
    assert "reports/tables/gain.csv" in heads
    assert [name for name, head in heads.items() if "task" in head and "task" not in keyed[name]] == []


def test_what_the_readme_changes_is_a_knob_and_not_its_default(root):
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    table = (root / "README.md").read_text(encoding="utf-8").split("| with `-S …` | |")[1].split("\n\n")[0]
    changes = re.findall(
        r"([a-z_.]+)=(\[.*?\]|[\w.]+)", " ".join(line.split("|")[1] for line in table.splitlines()[2:])
    )
    assert changes
    for key, value in changes:
        default = functools.reduce(lambda block, name: block[name], key.split("."), params)
        assert yaml.safe_load(value) != default, key
