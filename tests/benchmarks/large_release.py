"""A large pair of raw folders with the columns, sizes and habits of the real tables, written by DuckDB in minutes.

What it is for is speed and size: a stay has as many chart rows as in MIMIC-IV 3.1 (433 million of 94,458 stays), in the
file's order (stay by stay, by time), a given share of them of needed itemids. Values say nothing
about patients, and labevents is small.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from pipeline.mimic.variables import load_all
from pipeline.params import Data
from tests.support.raw_tree import LABELS, SPLIT, put

FULL_SIZE = 433_000_000  # rows of chartevents in MIMIC-IV 3.1
ROWS_PER_STAY = 4_584
UNNEEDED_ITEMS = 1_500

ITEMS = (
    "create table items (needed boolean, place integer, itemid integer, texts varchar[], unit varchar,"
    " low double, high double)"
)
STAYS = """
create table stays as select
    i::integer as i, 10_000_000 + i * 7 // 10 as subject_id, 20_000_000 + i as hadm_id, 30_000_000 + i as stay_id,
    -- in the four years after the subject's anchor_year, never two at a time
    make_timestamp(
        2110 + (i * 7 // 10) % 90, 1 + i % 12, 1 + (hash(i) % 28)::integer, (hash(i, 1) % 24)::integer, 7, 0.0
    ) as intime,
    1.2 + 6.0 * pow((hash(i, 2) % 1000) / 1000.0, 2) as days
from range($stays) t(i)
"""
CHART = """
select
    subject_id, hadm_id, stay_id,
    10_000 + hash(r // 30) % 9000 as caregiver_id,
    strftime(moment, '%Y-%m-%d %H:%M:%S') as charttime,
    strftime(moment + interval 9 minute, '%Y-%m-%d %H:%M:%S') as storetime,
    itemid,
    case when texts is not null then texts[1 + (hash(r, 3) % len(texts))::integer] else number::varchar end as value,
    case when texts is null then number end as valuenum,
    unit as valueuom,
    (hash(r, 4) % 97 = 0)::integer as warning
from (
    -- thirty values in the same minute by the same nurse, as in the real table, which is why it compresses so well
    select *, intime + to_minutes(floor((r % $per_stay) // 30 * 30 * days * 1440 / $per_stay)::bigint) as moment,
        round(low + (high - low) * (hash(r, 5) % 1009) / 1009.0, 1) as number
    from (
        select r, hash(r, 6) % 1000 < $needed * 1000 as needed,
            (hash(r, 7) % case when needed then $needed_items else $unneeded_items end)::integer as place,
            (r // $per_stay)::integer as i
        from range($rows) t(r)
    ) join items using (needed, place) join stays using (i)
)
"""
TABLES = {
    "iv/icu/icustays": "select subject_id, hadm_id, stay_id, 'MICU' as first_careunit, 'MICU' as last_careunit, intime,"
    " intime + to_seconds((days * 86400)::bigint) as outtime, days as los from stays",
    "iv/hosp/admissions": "select subject_id, hadm_id, intime - interval 1 day as admittime,"
    " intime + to_seconds(((days + 2) * 86400)::bigint) as dischtime,"
    " case when i % 10 = 0 then intime + to_seconds((days * 86400)::bigint) - interval 1 hour end as deathtime,"
    " 'EW EMER.' as admission_type, 'P1' as admit_provider_id, 'EMERGENCY ROOM' as admission_location,"
    " 'HOME' as discharge_location, 'Medicare' as insurance, 'ENGLISH' as language, '' as marital_status,"
    " 'WHITE' as race, null as edregtime, null as edouttime, (i % 10 = 0)::integer as hospital_expire_flag from stays",
    "iv/hosp/patients": "select subject_id, case when subject_id % 2 = 0 then 'F' else 'M' end as gender,"
    " 40 + subject_id % 50 as anchor_age, 2110 + (subject_id - 10_000_000) % 90 as anchor_year,"
    " '2011 - 2013' as anchor_year_group, null as dod from (select distinct subject_id from stays) order by all",
    "iv/hosp/diagnoses_icd": "select subject_id, hadm_id, n as seq_num,"
    " ['4019', '5849', '0389', '51881', '4280', '25000'][1 + ((i + n) % 6)::integer] as icd_code, 9 as icd_version"
    " from stays, range(1, 13) t(n) order by i, n",
    "iv/icu/outputevents": "select subject_id, hadm_id, stay_id, 1 as caregiver_id,"
    " intime + to_seconds(n * 3600) as charttime, intime + to_seconds(n * 3600) as storetime, 226559 as itemid,"
    " 20 + hash(i, n) % 200 as value, 'ml' as valueuom from stays, range(60) t(n) order by i, n",
    "iv/hosp/labevents": "select i * 6 + n as labevent_id, subject_id, hadm_id, i * 6 + n as specimen_id,"
    " 50912 as itemid,"
    " null as order_provider_id, intime + to_seconds(n * 28800) as charttime,"
    " intime + to_seconds(n * 28800 + 3600) as storetime, '1.1' as value, 1.1 as valuenum, 'mg/dL' as valueuom,"
    " 0.5 as ref_range_lower, 1.2 as ref_range_upper, null as flag, 'ROUTINE' as priority, null as comments"
    " from stays, range(6) t(n) order by i, n",
    "cxr/mimic-cxr-2.0.0-metadata": "select 'd-' || i as dicom_id, subject_id, 50_000_000 + i as study_id,"
    " 'CHEST (PORTABLE AP)' as PerformedProcedureStepDescription, 'AP' as ViewPosition, 3056 as Rows, 2544 as Columns,"
    " strftime(intime + interval 5 hour, '%Y%m%d') as StudyDate,"
    " strftime(intime + interval 5 hour, '%H%M%S') as StudyTime from stays where i % 4 = 0 order by i",
}


def large_release(folder: Path, rows: int, needed: float = 0.3) -> Data:
    """Write folders iv/ and cxr/ with `rows` rows of chartevents, a share `needed` of them of needed itemids."""
    stays = -(-rows // ROWS_PER_STAY)
    items = [
        (item.itemid, list(variable.vocabulary) or None, item.unit, max(variable.low, 0.0), min(variable.high, 400.0))
        for variable in load_all()
        if variable.source == "chartevents"
        for item in variable.items
    ]
    taken = {itemid for itemid, *_ in items}
    others = [itemid for itemid in range(223_000, 230_000) if itemid not in taken][:UNNEEDED_ITEMS]
    with duckdb.connect() as connection:
        connection.execute(ITEMS)
        connection.executemany(
            "insert into items values (?, ?, ?, ?, ?, ?, ?)",
            [(True, place, *item) for place, item in enumerate(items)]
            + [(False, place, itemid, None, "units", 0.0, 100.0) for place, itemid in enumerate(others)],
        )
        connection.execute(STAYS, {"stays": stays})
        chart = {
            "rows": rows,
            "per_stay": ROWS_PER_STAY,
            "needed": needed,
            "needed_items": len(items),
            "unneeded_items": len(others),
        }
        for name, query in {**TABLES, "iv/icu/chartevents": CHART}.items():
            path = folder / f"{name}.csv.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            connection.execute(
                f"copy ({query}) to '{path}' (format csv, header, compression gzip)",
                chart if query is CHART else {},
            )
    put(folder / "cxr/mimic-cxr-2.0.0-split.csv.gz", SPLIT)
    for name in ("chexpert", "negbio"):
        put(folder / f"cxr/mimic-cxr-2.0.0-{name}.csv.gz", LABELS)
    return Data(str(folder / "iv"), str(folder / "cxr"), cxr_tables="csv.gz", accept_unlisted_release=True)
