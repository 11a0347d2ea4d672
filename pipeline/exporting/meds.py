"""MEDS 0.4: a subject's events in the order of time, labels with the time of prediction, codes, splits of one fold.

DuckDB sorts part by part on the way into the files and spills what `ingest.memory_gb` does not hold. docs/exports.md
tells the codes; the format is that of the package `meds` (Medical-Event-Data-Standard/meds).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import polars as pl
from tqdm import tqdm

from pipeline import files
from pipeline.errors import InputError
from pipeline.exporting.source import new_folder, parts_of, require, series_rules
from pipeline.mimic.csv_query import quoted
from pipeline.mimic.manifest import load_manifest
from pipeline.mimic.variables import EVENT_SOURCES, load_all, needed_itemids
from pipeline.params import INPUT_HOURS, Ingest
from pipeline.tasks import get_task

VERSION = "0.4.1"  # of the format
SPLITS = {"train": "train", "val": "tuning", "test": "held_out", "dev": "dev"}  # part -> name in MEDS; dev has none
TABLES = ("patients", "admissions", "icustays", "diagnoses", "chart", "output", "lab")
SQL = Path(__file__).with_name("meds.sql")
TASKS = ("mortality", "phenotype", "los")
PREFIX = dict(zip(EVENT_SOURCES, ("CHART", "OUTPUT", "LAB"), strict=True))
ROW_GROUP = 262_144
log = logging.getLogger("export")


def write_meds(data: Path, out: Path, ingest: Ingest, fold: int | None = None) -> None:
    """Writes data/SPLIT/0.parquet, metadata/ and tasks/TASK/0.parquet to the new folder `out`.

    `data`: the packed data; `fold`: whose parts are the splits, the first where None. Raises InputError where a file or
    the fold is absent, or memory does not suffice.
    """
    interim = [f"interim/{name}.parquet" for name in TABLES]
    require(data, *interim, "manifest.json", "cohort/stays.parquet", "cohort/labels.parquet", "cohort/cxr.parquet")
    parts = parts_of(data, fold)
    with new_folder(out) as folder, files.scratch(out.with_name(f"{out.name}.sorting")) as scratch:
        try:
            with _connect(data, parts, ingest, scratch) as connection:
                _write_events(connection, series_rules(data).lab_time, folder)
                _write_codes(connection, folder)
                _copy(
                    connection,
                    "select subject_id::bigint as subject_id, split from people order by subject_id",
                    folder / "metadata/subject_splits.parquet",
                )
                rows = connection.execute(
                    f"select count(*) from read_parquet({quoted(f'{folder}/data/*/0.parquet')})"
                ).fetchone()
        except duckdb.OutOfMemoryException as error:
            raise InputError(f"ingest.memory_gb: {ingest.memory_gb} GB do not suffice: {error}") from None
        _write_labels(data, folder)
        files.write_json(_about(data), folder / "metadata/dataset.json")
    log.info("%d events of %d subjects: %s", rows[0] if rows else 0, parts["subject_id"].n_unique(), out)


def _connect(data: Path, parts: pl.DataFrame, ingest: Ingest, scratch: Path) -> duckdb.DuckDBPyConnection:
    """A connection that knows the relations of meds.sql."""
    connection = duckdb.connect()
    connection.execute(f"set memory_limit = '{ingest.memory_gb} GB'")
    connection.execute(f"set threads = {ingest.threads}")
    connection.execute(f"set temp_directory = {quoted(str(scratch / 'spilled'))}")
    connection.execute("set enable_progress_bar = false")
    for name in TABLES:
        connection.from_parquet(str(data / f"interim/{name}.parquet")).create_view(name)
    connection.from_parquet(str(data / "cohort/cxr.parquet")).create_view("cxr")
    people = parts.select("subject_id", split=pl.col("part").replace_strict(SPLITS)).unique().sort("subject_id")
    for name, frame in {"people": people, "items": pl.DataFrame(list(_items()))}.items():
        path = scratch / f"{name}.parquet"
        frame.write_parquet(path)
        connection.execute(f"create table {name} as select * from read_parquet($path)", {"path": str(path)})
    return connection


def _items() -> Iterator[dict[str, object]]:
    """A row per source and itemid: unit, code, description, and the variables that are made of it as parents."""
    variables = load_all()
    for source in EVENT_SOURCES:
        for itemid, wanted in needed_itemids(source).items():
            using = [(v, item) for v in variables if v.source == source for item in v.items if item.itemid == itemid]
            yield {
                "source": source,
                "itemid": itemid,
                "unit": wanted.unit,
                "code": "//".join([PREFIX[source], str(itemid), *([wanted.unit] if wanted.unit else [])]),
                "description": using[0][1].label,
                "parent_codes": [f"VARIABLE//{variable.name}" for variable, _ in using],
            }


def _copy(connection: duckdb.DuckDBPyConnection, query: str, path: Path, values: dict[str, str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection.execute(
        f"copy ({query}) to {quoted(str(path))} (format parquet, compression zstd, row_group_size {ROW_GROUP})", values
    )


def _write_events(connection: duckdb.DuckDBPyConnection, lab_time: str, folder: Path) -> None:
    query = SQL.read_text(encoding="utf-8").format(lab_time=lab_time)
    there = {row[0] for row in connection.execute("select distinct split from people").fetchall()}
    for split in tqdm([name for name in SPLITS.values() if name in there], desc="events", unit="part"):
        _copy(connection, query, folder / f"data/{split}/0.parquet", {"split": split})


def _write_codes(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """A row for every code that an event has; of ICD codes the parent is the code with its dot."""
    _copy(
        connection,
        f"""
        with codes as (
            select distinct code, split_part(code, '//', 3) as version, split_part(code, '//', 4) as icd,
                case when version = '9' and icd[1] = 'E' then 4 else 3 end as place
            from read_parquet({quoted(f"{folder}/data/*/0.parquet")})
        )
        select code, items.description,
            case when items.code is not null then items.parent_codes
                 when code like 'DIAGNOSIS//ICD//%' then
                    ['ICD' || version || 'CM/' || left(icd, place) || case when length(icd) > place then '.' else '' end
                     || icd[place + 1:]]
            end as parent_codes
        from codes left join items using (code) order by code
        """,
        folder / "metadata/codes.parquet",
    )


def _write_labels(data: Path, folder: Path) -> None:
    """A task a label: icu_mortality, phenotype/SLUG, los (its class, 0 to 6)."""
    stays = pl.read_parquet(data / "cohort/stays.parquet", columns=["stay_id", "subject_id", "intime"])
    labels = stays.join(pl.read_parquet(data / "cohort/labels.parquet"), on="stay_id", how="left")
    asked = labels.with_columns(
        pl.col("subject_id").cast(pl.Int64), prediction_time=pl.col("intime") + timedelta(hours=INPUT_HOURS)
    ).sort("subject_id", "prediction_time", "stay_id")
    for name in TASKS:
        task = get_task(name)
        for label in task.labels:
            value = pl.col(label).cast(pl.Int64).alias("integer_value")
            if task.kind != "multiclass":
                value = pl.col(label).alias("boolean_value")
            below = {"multilabel": f"{name}/{label}", "multiclass": name}.get(task.kind, label)
            files.write_parquet(
                asked.select("subject_id", "prediction_time", value), folder / f"tasks/{below}/0.parquet"
            )


def _about(data: Path) -> dict[str, object]:
    """dataset.json. No time of creation: the same data make the same bytes."""
    manifest = load_manifest(data / "manifest.json")
    releases = [manifest[name]["release"] for name in ("mimiciv", "mimic_cxr")]
    rules = json.loads((data / "cohort/rules.json").read_text(encoding="utf-8"))
    return {
        "dataset_name": " and ".join(releases),
        "dataset_version": f"cohort {rules['preset']}",
        "etl_name": "fusion-benchmark",
        "meds_version": VERSION,
        "raw_source_id_columns": ["hadm_id", "stay_id"],
        "additional_value_modality_columns": ["cxr_path"],
    }
