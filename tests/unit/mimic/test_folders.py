"""What is looked at before any raw file is read. That wrong folders are named stands in test_manifest.py."""

import hashlib

import pytest

from pipeline.errors import InputError
from pipeline.mimic.folders import optional_tables
from tests.support.raw_tree import raw_tree

FINDINGS = "cxr/mimic-cxr-2.0.0-chexpert.csv.gz"


def test_of_the_optional_tables_those_that_a_stage_reads_are_named_by_their_content(tmp_path):
    data = raw_tree(tmp_path)
    digest = hashlib.sha256((tmp_path / FINDINGS).read_bytes()).hexdigest()
    assert optional_tables(data) == {"mimic-cxr-2.0.0-chexpert.csv.gz": digest}
    (tmp_path / FINDINGS).unlink()
    assert optional_tables(data) == {}


def test_an_absent_needed_table_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"^data\.mimiciv: .*/icu/chartevents\.csv\.gz: not found"):
        optional_tables(raw_tree(tmp_path, {"iv/icu/chartevents.csv.gz": None}))
