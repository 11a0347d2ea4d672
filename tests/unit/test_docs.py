"""What the documents name is there: files of the project, and the documents that the index leads to."""

import re

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
