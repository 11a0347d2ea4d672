"""Labs: which stay a result belongs to, what stands for its number, and the hour in which it counts."""

import datetime as dt
import math

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.mimic import series
from pipeline.mimic.tables import SQL_FOLDER, want
from pipeline.mimic.variables import load_variables, needed_itemids, spelled
from pipeline.params import Ingest, Series

INGEST = Ingest(memory_gb=1.0, threads=2)
PLUS = load_variables("plus")
START = dt.datetime(2150, 3, 7, 10, 6, 41)
CREATININE = 50912


def at(hours=0.0, seconds=0):
    return START + dt.timedelta(hours=hours, seconds=seconds)


def joined(stays, rows):
    """What lab.sql makes of stays (subject, admission, stay, intime, outtime) and of rows of labevents."""
    with duckdb.connect() as connection:
        connection.execute(
            "create table icustays (subject_id int, hadm_id int, stay_id int, intime timestamp, outtime timestamp);"
            "create table source (subject_id int, hadm_id int, itemid int, charttime timestamp, storetime timestamp,"
            " value varchar, valuenum double, comments varchar, valueuom varchar)"
        )
        want(connection, needed_itemids("labevents"))
        for table, content in (("icustays", stays), ("source", rows)):
            for row in content:
                connection.execute(f"insert into {table} values ({', '.join('?' * len(row))})", row)
        query = (SQL_FOLDER / "lab.sql").read_text(encoding="utf-8")
        columns = (
            "stay_id, charttime, available, itemid, valuenum, dropped, list_filter(noted, lambda x: x is not null)"
        )
        return connection.execute(f"select {columns} from ({query}) order by valuenum, stay_id").fetchall()


def result(drawn, stored, number=1.0, hadm=10, subject=1, text=None, comments=None, unit="mg/dL", item=CREATININE):
    return (subject, hadm, item, drawn, stored, text, number, comments, unit)


# Two stays of admission 10, six hours apart, and one of admission 11.
STAYS = [(1, 10, 100, at(0), at(50)), (1, 10, 101, at(56), at(110)), (1, 11, 102, at(1000), at(1100))]


def where(*rows):
    """The number of each result -> the stays that have it."""
    found = {}
    for stay, _, _, _, number, _, _ in joined(STAYS, rows):
        found.setdefault(number, []).append(stay)
    return found


@pytest.mark.parametrize("hadm", [10, None])
def test_each_of_two_stays_of_an_admission_has_its_own_results(hadm):
    found = where(
        result(at(1), at(2), 1, hadm),
        result(at(60), at(61), 2, hadm),
        result(at(52), at(53), 3, hadm),  # on the ward, in between
        result(
            at(49), at(57), 4, hadm
        ),  # drawn in the first, known in the second: which counts is for `lab_time` to say
        result(at(-2), at(1), 5, hadm),  # drawn before the stay, known in it
        result(at(-2), at(0, -1), 6, hadm),
        result(at(50), at(51), 7, hadm),  # drawn when the stay was over
        result(at(49), at(51), 8, hadm),
    )
    assert found == {1: [100], 2: [101], 3: [None], 4: [100, 101], 5: [100], 6: [None], 7: [None], 8: [100]}


def test_a_result_of_another_admission_or_subject_is_not_taken_for_its_time():
    """Where hadm_id is there it decides; where it is null, the time does, within the subject."""
    found = where(
        result(at(1), at(2), 1, hadm=11),
        result(at(1), at(2), 2, hadm=99),
        result(at(1), at(2), 3, subject=2),
        result(at(1), at(2), 4, hadm=None, subject=2),
        result(at(1001), at(1002), 5, hadm=None),
    )
    assert found == {1: [None], 2: [None], 3: [None], 4: [None], 5: [102]}


def test_a_result_is_there_when_it_was_stored_and_never_before_it_was_drawn():
    rows = joined(
        STAYS, [result(at(1), at(3), 1), result(at(1), None, 2), result(at(2), at(1), 3), result(None, at(1), 4)]
    )
    assert [(row[1], row[2], row[5], row[6]) for row in rows] == [
        (at(1), at(3), None, []),
        (at(1), at(1), None, ["without storetime"]),
        (at(2), at(2), None, ["stored before drawn"]),
        (None, at(1), "no charttime", None),
    ]


@pytest.mark.parametrize(
    ("text", "number", "comments", "expected", "bounded"),
    [
        ("1.4", 1.4, None, 1.4, False),
        ("___", 1.4, "<0.1.", 1.4, False),  # the number counts, whatever is said beside it
        ("1.4", None, None, 1.4, False),
        (None, None, "<0.01.  CTROPNT > 0.10 NG/ML SUGGESTS ACUTE MI.", 0.01, True),
        ("___", None, "<3*.", 3, True),
        (None, None, "GREATER THAN 500.  VERIFIED.", 500, True),
        (None, None, "less than .2", 0.2, True),
        ("<0.1", None, None, 0.1, True),
        (">= 20", None, "___", 20, True),
        (">70,000", None, None, 70_000, True),
        (None, None, "GREATER THAN 1,070,000.5. VERIFIED.", 1_070_000.5, True),
        ("70,000", None, None, 70_000, False),
        ("70,00", None, None, None, False),
        (">70,00", None, None, None, False),
        ("GREATER THAN 6 HOURS OLD. TEST NOT PERFORMED", None, None, None, False),
        (None, None, "< 4 HOURS AFTER THE LAST DOSE", None, False),
        (None, None, "<5 OR SO", None, False),
        (None, None, "<5.0.1", None, False),
        ("<0.5*", None, None, 0.5, True),
        ("< 0.5 mg/dL", None, None, 0.5, True),
        ("> 88.42 µmol/L. VERIFIED.", None, None, 1, True),
        (None, None, "<5 NG/ML", None, False),
        ("NaN", None, None, None, False),
        ("UNABLE TO REPORT", None, "<0.1", None, False),
        ("___", None, "HEMOLYZED, MODERATELY.", None, False),
        (None, None, "NORMAL IS <0.1", None, False),
        (None, None, None, None, False),
    ],
)
def test_what_stands_for_the_number(text, number, comments, expected, bounded):
    (row,) = joined(STAYS, [result(at(1), at(2), number, text=text, comments=comments)])
    noted = ["a bound for a number"] if bounded else []
    if "µ" in (text or ""):
        noted.append("unit umol/l of itemid 50912: converted")
    assert row[4:] == ((None, "no number", None) if expected is None else (expected, None, noted))


@given(
    st.sampled_from(["<", ">", "<=", ">=", "LESS THAN ", "greater than "]),
    st.integers(0, 10_000_000),
    st.integers(0, 999),
    st.booleans(),
    st.sampled_from(["", ".", "*", "*.", ".  Verified.", " mg/dL", " MG/DL."]),
)
@settings(max_examples=60, deadline=None)
def test_a_bound_is_read_with_and_without_separators_of_thousands(sign, whole, thousandths, separated, end):
    text = sign + (f"{whole:,}" if separated else str(whole)) + (f".{thousandths:03d}" if thousandths else "") + end
    (row,) = joined(STAYS, [result(at(1), at(2), None, text=text)])
    assert row[4:] == (float(f"{whole}.{thousandths:03d}"), None, ["a bound for a number"])


@given(st.sampled_from(["<", "GREATER THAN "]), st.integers(0, 99), st.text("ABCDEFGHIJ ,-()", min_size=1))
@settings(max_examples=40, deadline=None)
def test_words_behind_a_bound_are_no_unit(sign, number, words):
    (row,) = joined(STAYS, [result(at(1), at(2), None, text=f"{sign}{number} X{words}")])
    assert row[4:] == (None, "no number", None)


@pytest.mark.parametrize(
    ("item", "unit", "number", "text", "expected", "dropped"),
    [
        (CREATININE, "umol/L", 55, None, 55 / 88.42, None),
        (CREATININE, "UMOL/L", None, "<55.", 55 / 88.42, None),
        (CREATININE, "mmol/L", 0.1, None, None, "unit mmol/l of itemid 50912"),
        (CREATININE, None, 1.1, None, 1.1, None),
        (CREATININE, "none", 1.1, None, 1.1, None),
        (50889, "mg/dL", 12.5, None, 125, None),  # C-reactive protein
        (50889, "MG/L ", 12.5, None, 12.5, None),
        (50889, "mg/L", None, ">30 mg/dL", 300, None),
        (50889, "furlong", None, ">300", None, "unit furlong of itemid 50889"),
        (51249, "%", 33, None, 33, None),
    ],
)
def test_a_result_gets_the_unit_of_its_item_or_is_left_out(item, unit, number, text, expected, dropped):
    (row,) = joined(STAYS, [result(at(1), at(2), number, text=text, unit=unit, item=item)])
    assert row[5] == dropped
    if dropped is None:
        assert row[4] == pytest.approx(expected)
        converted = expected not in (number, None) and number != expected
        assert [words for words in row[6] if "converted" in words] == (
            [f"unit {spelled('mg/dL' if text and 'mg/dL' in text else unit)} of itemid {item}: converted"]
            if converted
            else []
        )


@pytest.mark.parametrize("source", ["chartevents", "outputevents", "labevents"])
def test_sql_spells_units_as_python_does(source):
    with duckdb.connect() as connection:
        want(connection, needed_itemids(source))
        told = connection.execute("select unit, spelled(upper(unit)), spelled(' ' || unit) from units").fetchall()
        units = [unit for unit, _, _ in told]
        assert len(told) > 5
        assert told == [(unit, spelled(unit), spelled(unit)) for unit in units]
        assert connection.execute("select spelled('µMol / L'), spelled('μg')").fetchall() == [("umol/l", "ug")]


moments = st.integers(-30, 130).map(at)
results = st.lists(
    st.tuples(st.sampled_from([10, 11, None]), moments, st.one_of(st.none(), moments), st.booleans()), max_size=12
)


@given(st.lists(st.tuples(st.sampled_from([10, 11]), moments, moments), max_size=5), results)
@settings(max_examples=60, deadline=None)
def test_the_join_against_a_plain_loop(drawn_stays, drawn_results):
    stays = [(1, hadm, i, begin, end) for i, (hadm, begin, end) in enumerate(drawn_stays)]
    rows = [result(t, s, i if there else None, hadm) for i, (hadm, t, s, there) in enumerate(drawn_results)]
    expected, dropped, again = [], {"in no ICU stay": 0, "no number": 0}, 0
    for _, hadm, _, drawn, stored, _, number, _, _ in rows:
        known = max(drawn, stored or drawn)
        mine = [s for _, h, s, begin, end in stays if hadm in (h, None) and drawn < end and known >= begin]
        if not mine or number is None:
            dropped["no number" if mine else "in no ICU stay"] += 1
        else:
            expected += [(number, stay, drawn, known) for stay in mine]
            again += len(mine) - 1
    found = joined(stays, rows)
    kept = [(number, stay, drawn, known) for stay, drawn, known, _, number, reason, _ in found if reason is None]
    assert sorted(kept) == sorted(expected)
    for reason, count in dropped.items():
        assert sum(row[5] == reason for row in found) == count
    assert sum("in a second stay" in (row[6] or []) for row in found) == again


# --- the hour


LAB = {
    "stay_id": pl.Int32,
    "charttime": pl.Datetime("us"),
    "available": pl.Datetime("us"),
    "itemid": pl.Int32,
    "valuenum": pl.Float64,
}
CHART = {
    "stay_id": pl.Int32,
    "charttime": pl.Datetime("us"),
    "itemid": pl.Int32,
    "value": pl.String,
    "valuenum": pl.Float64,
}
OUTPUT = {"stay_id": pl.Int32, "charttime": pl.Datetime("us"), "itemid": pl.Int32, "value": pl.Float64}


def hours(folder, lab=(), chart=(), lab_time="available"):
    """{variable: ({hour: value}, counts)} of a stay that begins at START.

    Lab rows: (drawn, available, item, number); chart rows: (time, item, text, number).
    """
    pl.DataFrame([(1, *row) for row in lab], LAB, orient="row").write_parquet(folder / "lab.parquet")
    pl.DataFrame([(1, *row) for row in chart], CHART, orient="row").write_parquet(folder / "chart.parquet")
    pl.DataFrame([], OUTPUT).write_parquet(folder / "output.parquet")
    stays = pl.DataFrame({"stay_id": [1], "intime": [START]}, {"stay_id": pl.Int32, "intime": pl.Datetime("us")})
    with series.open_events(folder, PLUS, Series(tier="plus", lab_time=lab_time, max_jump=2.0), INGEST) as events:
        values, counts = series.extract(events, stays)
        named = zip((v.name for v in events.variables), values[0].T.tolist(), counts, strict=True)
        return {
            name: ({h: x for h, x in enumerate(row) if not math.isnan(x)}, dict(zip(series.COUNTS, count, strict=True)))
            for name, row, count in named
        }


@given(st.integers(-3 * 3600, 51 * 3600), st.integers(0, 30 * 3600), st.sampled_from(["available", "charttime"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_result_falls_into_the_hour_of_the_time_that_counts(tmp_path, drawn, wait, lab_time):
    """To the second, in [intime, intime + 48 h): drawn before intime it counts where it became known after it."""
    found = hours(tmp_path, [(at(0, drawn), at(0, drawn + wait), CREATININE, 1.5)], lab_time=lab_time)
    counts = drawn + wait if lab_time == "available" else drawn
    inside = 0 <= counts < 48 * 3600
    assert found["creatinine"][0] == ({counts // 3600: 1.5} if inside else {})
    assert found["creatinine"][1]["rows"] == inside


def test_the_edges_of_the_hours(tmp_path):
    rows = [(at(-5), at(*edge), CREATININE, i + 1.0) for i, edge in enumerate([(0, -1), (0,), (1, -1), (1,), (48,)])]
    assert hours(tmp_path, rows)["creatinine"][0] == {0: 2.5, 1: 4.0}


def test_drawn_in_one_hour_and_known_in_the_next(tmp_path):
    rows = [(at(3.9), at(5.2), CREATININE, 2.0), (at(4.1), at(4.5), CREATININE, 3.0)]
    assert hours(tmp_path, rows)["creatinine"][0] == {4: 3.0, 5: 2.0}
    assert hours(tmp_path, rows, lab_time="charttime")["creatinine"][0] == {3: 2.0, 4: 3.0}


def test_the_laboratory_and_the_gas_analyser_measure_one_analyte(tmp_path):
    found = hours(tmp_path, [(at(1), at(1), 50983, 140.0), (at(1), at(1.5), 50824, 136.0), (at(1), at(1), 50983, 14.0)])
    assert found["sodium"] == (
        {1: 138.0},
        {"rows": 3, "used": 2, "dropped": 0, "unknown": 0, "empty": 0, "out_of_range": 1, "hours_that_jump": 0},
    )


def test_a_chart_value_is_no_lab_value_and_the_other_way_round(tmp_path):
    found = hours(tmp_path, [(at(1), at(1), 50931, 200.0)], [(at(2), 220621, "150", 150.0)])
    assert (found["glucose_lab"][0], found["glucose"][0]) == ({1: 200.0}, {2: 150.0})


# --- at the bedside


def test_oxygen_height_and_weight(tmp_path):
    chart = [
        (at(0), 223835, "0.4", 0.4),
        (at(0), 223835, "60", 60.0),
        (at(1), 223835, "4", 4.0),  # litres
        (at(0), 226707, "70", 70.0),
        (at(1), 226730, "70", 70.0),  # inches under the item for centimetres
        (at(2), 224639, "81.5", 81.5),
        (at(3), 220339, "5", 5.0),
        (at(3), 224700, "8", 8.0),
    ]
    found = {name: cells for name, (cells, _) in hours(tmp_path, chart=chart).items() if cells}
    assert found == {"fio2": {0: 50.0}, "height": {0: pytest.approx(177.8)}, "weight": {2: 81.5}, "peep": {3: 6.5}}


def test_a_height_from_the_day_before_counts_in_hour_0_and_nothing_else_from_before_intime(tmp_path):
    chart = [
        (at(-24, -1), 226730, "150", 150.0),
        (at(-24), 226730, "160", 160.0),
        (at(0, -1), 226512, "80", 80.0),
        (at(0, -1), 220045, "80", 80.0),
        (at(47, 3599), 226730, "180", 180.0),
        (at(48), 226730, "190", 190.0),
    ]
    lab = [(at(-1), at(0, -1), CREATININE, 1.0)]
    found = {name: cells for name, (cells, _) in hours(tmp_path, lab, chart).items() if cells}
    assert found == {"height": {0: 160.0, 47: 180.0}}
    chart.insert(2, (at(0, -41), 226730, "170", 170.0))
    assert hours(tmp_path, lab, chart)["height"][0] == {0: 170.0, 47: 180.0}
    chart.insert(3, (at(0.5), 226730, "171", 171.0))
    assert hours(tmp_path, lab, chart)["height"][0] == {0: 171.0, 47: 180.0}


def test_the_flag_follows_the_last_evidence_and_never_a_later_one(tmp_path):
    chart = [
        (at(0.1), 226732, "Nasal cannula", None),
        (at(0.6), 226732, "Endotracheal tube", None),
        (at(2), 223849, "CPAP/PSV", None),  # by tube or by mask
        (at(3), 223900, "No Response-ETT", 1.0),
        (at(5.2), 229314, "ASV", None),
        (at(5.2), 226732, "None", None),  # at the same second: the tube
        (at(6.5), 223900, "Confused", 4.0),
        (at(7), 226732, "Something new", None),
    ]
    found = hours(tmp_path, chart=chart)
    assert found["intubated"] == (
        {0: 1.0, 3: 1.0, 5: 1.0, 6: 0.0},
        {"rows": 8, "used": 6, "dropped": 1, "unknown": 1, "empty": 0, "out_of_range": 0, "hours_that_jump": 0},
    )
    assert found["gcs_verbal"][0] == {6: 4.0}
    for hour in range(8):  # what is charted after an hour does not touch it
        early = [row for row in chart if row[0] < at(hour + 1)]
        cells = hours(tmp_path, chart=early)["intubated"][0]
        assert cells == {h: value for h, value in found["intubated"][0].items() if h <= hour}
