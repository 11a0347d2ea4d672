"""Subjects to parts: dev, test, validation or training, in each fold.

`folds`: dev in every fold, else test in one, validation or training in the others. A subject's parts come from a salted
SHA-256 of its id alone, so they do not depend on who else is in the cohort, and MIMIC-IV 2.2 and 3.1 agree.

`temporal`: one fold. Who is not dev is in test with all stays where the era of one of them begins in test_from_year or
later, else in validation or training. So whatever is trained on lies before every later era, and test also holds the
earlier stays of those who came back. An era is known to within a year (clock.era_at); who has a stay without one goes
to dev, since it may be later than what is tested, or earlier than what is trained on.

For small cohorts `stratify` deals subjects out stratum by stratum instead of by their hash.
"""

from __future__ import annotations

import hashlib
from typing import Any

import polars as pl

from pipeline.disclosure import part_of, parted, protected, told
from pipeline.errors import InputError
from pipeline.params import Splits

PARTS = ("train", "val", "test", "dev")


def uniform(*key: object) -> float:
    """A number in [0, 1) that depends on nothing but the key: 53 bits of SHA-256, the same on every machine."""
    digest = hashlib.sha256(":".join(map(str, key)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)


def era_start(era: str = "era") -> pl.Expr:
    """First year of an era like `2011 - 2013`; null where there is none."""
    return pl.col(era).str.head(4).cast(pl.Int32)


def dated(stays: pl.DataFrame, rules: Splits) -> pl.DataFrame:
    """subject_id, late (a stay's era begins in test_from_year or later; null: a stay has no era); by subject_id."""
    start = era_start()
    return (
        stays.group_by("subject_id")
        .agg(late=pl.when(start.is_not_null().all()).then((start >= rules.test_from_year).any()))
        .sort("subject_id")
    )


def parts_of_subject(subject_id: int, rules: Splits, late: bool | None = None) -> list[str]:
    """The subject's part in each fold. `late` (of `dated`) is read by the scheme temporal alone."""
    dev = uniform(rules.salt, "dev", subject_id) < rules.dev_share
    if rules.scheme == "temporal":
        dev, test = dev or late is None, 0 if late else -1
    else:
        test = int(uniform(rules.salt, "test", subject_id) * rules.folds)
    if dev:
        return ["dev"] * rules.count
    return [
        "test" if fold == test else "val" if uniform(rules.salt, "val", fold, subject_id) < rules.val_share else "train"
        for fold in range(rules.count)
    ]


def _chosen(position: int, share: float) -> bool:
    """Whether the item at `position` belongs to an evenly spread `share` of a list."""
    return int((position + 1) * share + 1e-9) > int(position * share + 1e-9)


def _dealt(strata: pl.DataFrame, rules: Splits, late: dict[int, bool | None]) -> dict[int, list[str]]:
    """Parts per subject, dealt out along the subjects sorted by stratum and, within it, by hash."""
    rows = sorted(strata.iter_rows(), key=lambda row: (row[1], uniform(rules.salt, "deal", row[0])))
    parts: dict[int, list[str]] = {}
    place = 0
    in_val = [0] * rules.count
    for position, (subject_id, _) in enumerate(rows):
        undated = rules.scheme == "temporal" and late[subject_id] is None
        if undated or _chosen(position, rules.dev_share):
            parts[subject_id] = ["dev"] * rules.count
            continue
        if rules.scheme == "temporal":
            test = 0 if late[subject_id] else -1
        else:
            test, place = place % rules.folds, place + 1
        row = []
        for fold in range(rules.count):
            if fold == test:
                row.append("test")
                continue
            row.append("val" if _chosen(in_val[fold], rules.val_share) else "train")
            in_val[fold] += 1
        parts[subject_id] = row
    return parts


def split(stays: pl.DataFrame, labels: pl.DataFrame, rules: Splits) -> pl.DataFrame:
    """Columns stay_id, fold, subject_id, part; sorted by stay_id and fold.

    `stays` has stay_id, subject_id, has_cxr, era; `labels` has stay_id, icu_mortality, los_class (read only to
    stratify). Raises InputError where the scheme temporal leaves none to train on or to test.
    """
    late = dict(dated(stays, rules).iter_rows())
    if rules.stratify:
        strata = (
            stays.join(labels, on="stay_id")
            .group_by("subject_id")
            .agg(pl.col("icu_mortality").max(), pl.col("has_cxr").max(), pl.col("los_class").max())
            .select("subject_id", pl.concat_str("icu_mortality", "has_cxr", "los_class", separator="/"))
        )
        parts = _dealt(strata, rules, late)
    else:
        parts = {subject: parts_of_subject(subject, rules, late[subject]) for subject in late}
    if rules.scheme == "temporal":
        found = {part for row in parts.values() for part in row}
        for part in ("train", "test"):
            if part not in found:
                raise InputError(f"splits.test_from_year: {rules.test_from_year} leaves no subject for {part}")
    subjects = stays["subject_id"].to_list()
    return (
        stays.select(
            "stay_id",
            pl.Series("fold", [list(range(rules.count))] * stays.height, dtype=pl.List(pl.Int8)),
            "subject_id",
            pl.Series("part", [parts[subject] for subject in subjects], dtype=pl.List(pl.String)),
        )
        .explode("fold", "part")
        .sort("stay_id", "fold")
    )


def balance(splits: pl.DataFrame, stays: pl.DataFrame, labels: pl.DataFrame) -> list[dict[str, Any]]:
    """One row per fold and part: stays, subjects, share of deaths and images, mean length of stay; for the report.

    A share is null where the number of people behind it could not be told.
    """
    rows = (
        splits.join(stays.select("stay_id", "has_cxr", "los_days"), on="stay_id")
        .join(labels.select("stay_id", "icu_mortality"), on="stay_id")
        .sort("stay_id", "fold")
        .group_by("fold", "part", maintain_order=True)
        .agg(
            pl.len().alias("stays"),
            pl.col("subject_id").n_unique().alias("subjects"),
            pl.col("icu_mortality").sum().alias("mortality"),
            pl.col("has_cxr").sum(),
            pl.col("los_days").mean().alias("los_mean"),
        )
        .sort("fold", pl.col("part").cast(pl.Enum(PARTS)))
    )
    lines = _sums(rows)
    counts: dict[str, list[int]] = {
        name: rows[name].to_list() for name in ("stays", "subjects", "mortality", "has_cxr")
    }
    shown = {name: protected(counts[name], lines) for name in ("stays", "subjects")}
    for name in ("mortality", "has_cxr"):
        shown[name] = parted(counts["stays"], counts[name], shown["stays"], lines)[0]
    return [
        {
            **{name: row[name] for name in ("fold", "part")},
            **{name: shown[name][i] for name in ("stays", "subjects")},
            **{
                name: None if isinstance(shown[name][i], str) else row[name] / row["stays"]
                for name in ("mortality", "has_cxr")
            },
            "los_mean": None if isinstance(shown["stays"][i], str) else row["los_mean"],
        }
        for i, row in enumerate(rows.iter_rows(named=True))
    ]


def _sums(rows: pl.DataFrame) -> list[list[int]]:
    """Places of rows that make up the cohort: a fold's parts; of several folds, their tests and the one dev."""
    places = rows.with_row_index("place")
    lines = [each["place"].to_list() for each in places.partition_by("fold", maintain_order=True)]
    if len(lines) > 1:
        dev = places.filter(part="dev", fold=rows["fold"].min())["place"].to_list()
        lines.append(places.filter(part="test")["place"].to_list() + dev)
    return lines


def eras(splits: pl.DataFrame, stays: pl.DataFrame, rules: Splits) -> dict[str, Any]:
    """Of the scheme temporal: the stays of each era in each part, and those whose era is not what the part promises."""
    placed = splits.join(stays.select("stay_id", "era"), on="stay_id")
    early = era_start() < rules.test_from_year
    by_era = placed.sort("era", nulls_last=True).partition_by("era", maintain_order=True)
    counts = [rows.filter(part=part).height for rows in by_era for part in PARTS]
    # sums are known of an era, of a part, and, of the tested, of earlier eras and of later ones
    lines = [[i * len(PARTS) + j for j in range(len(PARTS))] for i in range(len(by_era))]
    lines += [[i * len(PARTS) + j for i in range(len(by_era))] for j in range(len(PARTS))]
    test = PARTS.index("test")
    before = [not rows.filter(early).is_empty() for rows in by_era]
    lines += [[i * len(PARTS) + test for i, each in enumerate(before) if each is side] for side in (True, False)]
    shown = iter(protected(counts, lines))
    tested = placed.filter(part="test")
    return {
        "stays_by_era": [{"era": rows["era"][0] or "none"} | {part: next(shown) for part in PARTS} for rows in by_era],
        "test_stays_of_an_earlier_era": part_of(tested.height, tested.filter(early).height),
        "stays_without_era": told(placed["era"].null_count()),
        "subjects_in_dev_for_want_of_an_era": told(dated(stays, rules)["late"].null_count()),
    }
