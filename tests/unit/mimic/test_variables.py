"""variables.yaml: what stands in it, what its numbers mean, and that a slip in it is named."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.mimic.variables import (
    FILE,
    Conversion,
    load_all,
    load_variables,
    needed_itemids,
    normalise,
    spelled,
    with_helpers,
)

CORE = [
    "heart_rate",
    "sbp",
    "dbp",
    "mbp",
    "resp_rate",
    "temperature",
    "spo2",
    "glucose",
    "gcs_eyes",
    "gcs_motor",
    "gcs_verbal",
    "gcs_total",
    "urine_output",
    "urine_output_6h",
    "urine_output_12h",
    "urine_output_24h",
    "urine_rate_6h",
    "urine_rate_12h",
    "urine_rate_24h",
    "urine_hours_6h",
    "urine_hours_12h",
    "urine_hours_24h",
    "heart_rhythm",
    "ectopy_type",
    "ectopy_frequency",
    "ectopy_type_secondary",
    "ectopy_frequency_secondary",
]

# Behind core, in this order.
GROUPS = (
    "albumin globulin total_protein anion_gap bicarbonate bun calcium chloride creatinine glucose_lab sodium potassium",
    "hematocrit hemoglobin mch mchc mcv platelets rbc rdw wbc",
    "so2 po2 pco2 ph base_excess lactate total_co2 ionized_calcium aado2 carboxyhemoglobin methemoglobin",
    "inr pt ptt fibrinogen d_dimer thrombin_time",
    "alt ast alp amylase bilirubin_total bilirubin_direct bilirubin_indirect ck ggt ldh",
    "troponin_t ck_mb nt_probnp crp",
    "fio2 peep intubated height weight",
)
PLUS = [name for group in GROUPS for name in group.split()]

BY_NAME = {variable.name: variable for variable in load_all()}


def test_the_core_tier_has_its_27_variables_in_order():
    assert [variable.name for variable in load_variables("core")] == CORE


def test_the_plus_tier_has_core_first_and_every_variable_of_the_file():
    assert [variable.name for variable in load_variables("plus")] == CORE + PLUS
    assert load_variables("plus")[:27] == load_variables("core")
    assert set(load_variables("plus")) == set(load_all())
    assert {v.name for v in load_all() if v.source == "labevents"} == set(PLUS[: PLUS.index("fio2")])


@pytest.mark.parametrize("tier", ["Core", "everything", ""])
def test_another_tier_is_an_error(tier):
    with pytest.raises(InputError, match=r"series\.tier"):
        load_variables(tier)


def test_only_the_rates_need_a_helper_and_it_is_the_weight():
    core = load_variables("core")
    assert [variable.name for variable in with_helpers(core)[len(core) :]] == ["weight"]
    assert with_helpers(load_variables("plus")) == load_variables("plus")
    assert with_helpers((BY_NAME["heart_rate"],)) == (BY_NAME["heart_rate"],)
    assert {v.name for v in with_helpers((BY_NAME["gcs_total"],))} == {
        *("gcs_total", "gcs_eyes", "gcs_motor", "gcs_verbal")
    }


def test_itemids_that_ingest_must_keep():
    chart, output = needed_itemids("chartevents"), needed_itemids("outputevents")
    assert list(chart) == sorted(chart)
    assert {224650, 223900, 220045} & {itemid for itemid, each in chart.items() if each.has_text} == {224650, 223900}
    assert {220045, 223761, 223762, 226512, 224639, 226480} <= set(chart)
    assert list(output) == [*range(226557, 226562), *range(226563, 226566), 226567, 226584, 227488, 227489]
    assert not set(chart) & set(output)
    # mimic-code's chemistry, complete_blood_count, bg, coagulation, enzyme, cardiac_marker and inflammation; without
    # 52159, 50816, 50825 and 52033 (variables.yaml says why)
    chemistry = {50862, 50930, 50976, 50868, 50882, 51006, 50893, 50902, 50912, 50931, 50983, 50971}
    count = {51221, 51222, 51248, 51249, 51250, 51265, 51279, 51277, 51301}
    gas = {50801, 50802, 50803, 50804, 50805, 50806, 50808, 50809, 50810, 50811, 50813, 50814, 50817, 50818, 50820}
    gas |= {50821, 50822, 50824}
    clotting = {51237, 51274, 51275, 51214, 51196, 51297}
    others = {50861, 50878, 50863, 50867, 50885, 50883, 50884, 50910, 50911, 50927, 50954, 51003, 50963, 50889}
    assert set(needed_itemids("labevents")) == chemistry | count | gas | clotting | others
    assert {226707, 226730, 223835, 220339, 224700, 226732, 223849, 229314} <= set(chart)


@pytest.mark.parametrize(
    ("name", "low", "high", "unit"),
    [
        ("heart_rate", 0, 300, "bpm"),
        ("sbp", 0, 300, "mmHg"),
        ("dbp", 0, 200, "mmHg"),
        ("mbp", 0, 250, "mmHg"),
        ("resp_rate", 0, 70, "/min"),
        ("temperature", 25, 45, "°C"),
        ("spo2", 50, 100, "%"),
        ("glucose", 10, 2000, "mg/dL"),
        ("gcs_eyes", 1, 4, "points"),
        ("gcs_motor", 1, 6, "points"),
        ("gcs_verbal", 1, 5, "points"),
        ("gcs_total", 3, 15, "points"),
        ("urine_output", -4000, 5000, "mL"),
        ("urine_rate_24h", 0, 20, "mL/kg/h"),
        ("creatinine", 0.1, 60, "mg/dL"),
        ("ph", 6.3, 8, "units"),
        ("fio2", 20, 100, "%"),
        ("height", 120, 230, "cm"),
        ("weight", 20, 400, "kg"),
    ],
)
def test_ranges_and_units(name, low, high, unit):
    variable = BY_NAME[name]
    assert (variable.low, variable.high, variable.unit) == (low, high, unit)


def test_fahrenheit_meets_both_bounds_exactly():
    to_celsius = next(item for item in BY_NAME["temperature"].items if item.itemid == 223761).conversion
    assert (to_celsius(77.0), to_celsius(113.0)) == (25.0, 45.0)
    assert to_celsius(98.6) == pytest.approx(37)
    assert to_celsius(113.1) > 45
    assert to_celsius(76.9) < 25


def test_an_oxygen_fraction_becomes_per_cent_and_per_cent_stay():
    (item,) = BY_NAME["fio2"].items
    assert [item.conversion(value) for value in (0.21, 0.4, 1, 1.5, 21, 100)] == [21, 40, 100, 1.5, 21, 100]


def test_inches_become_centimetres():
    inch = next(item for item in BY_NAME["height"].items if item.itemid == 226707).conversion
    assert inch(67) == pytest.approx(170.18)


@given(st.floats(0, 5000))
def test_irrigant_counts_negative_whatever_its_sign(volume):
    irrigant = next(item for item in BY_NAME["urine_output"].items if item.itemid == 227488).conversion
    assert irrigant(volume) == irrigant(-volume) == -volume


def test_aggregation_and_filling():
    assert {v.name for v in load_variables("core") if v.aggregate == "sum"} == {"urine_output"}
    assert all(BY_NAME[name].aggregate == "last" for name in ("gcs_eyes", "gcs_motor", "gcs_verbal", "heart_rhythm"))
    assert {v.name for v in load_variables("core") if v.fill.carry_hours == 8} == set(CORE[-5:])
    assert all(v.fill.default == ("none" if v.kind == "category" else "train_median") for v in load_variables("core"))


def test_only_what_stays_the_same_may_come_from_before_intime():
    assert {v.name: v.hours_before for v in load_all() if v.hours_before} == {"height": 24}


def test_texts_are_compared_trimmed_and_without_case():
    rhythm = BY_NAME["heart_rhythm"]
    assert rhythm.code("ST (Sinus Tachycardia) ") == rhythm.vocabulary.index("ST (Sinus Tachycardia)")
    assert rhythm.code(" af  (ATRIAL fibrillation)") == rhythm.vocabulary.index("AF (Atrial Fibrillation)")


def test_none_is_a_value_and_an_unknown_text_is_other():
    ectopy = BY_NAME["ectopy_type"]
    assert ectopy.code("None") == 0
    assert ectopy.knows("None")
    assert ectopy.code("Torsades") == ectopy.vocabulary.index("Other") == len(ectopy.vocabulary) - 1
    assert not ectopy.knows("Torsades")


def test_frequencies_are_ranks_and_an_unknown_one_has_none():
    frequency = BY_NAME["ectopy_frequency"]
    codes = [frequency.code(text) for text in ("None", "Rare", "Occasional", "Frequent", "Runs Vtach")]
    assert codes == [0, 1, 2, 3, 4]
    assert frequency.code("Sometimes") is None


def test_what_tells_of_an_airway():
    """0 none, 1 a tube; what is charted with and without one tells nothing, and is no unknown text either."""
    airway = BY_NAME["intubated"]
    for text in ("None", "Nasal cannula", "Bipap mask ", "NIV-ST", "Oriented", "High flow nasal cannula"):
        assert airway.code(text) == 0, text
    for text in ("Endotracheal tube", "Trach mask ", "No Response-ETT", "CMV/ASSIST/AutoFlow", "ASV", "PSV/SBT"):
        assert airway.code(text) == 1, text
    for text in ("Other", "CPAP/PSV", "Standby", "No Response", "SPONT"):
        assert airway.drops(text), text
        assert not airway.knows(text), text
    assert airway.code("Something new") is None
    assert not any(airway.drops(text) for group in airway.texts for text in group)
    every = [normalise(text) for group in airway.texts for text in group]
    assert len(set(every)) == len(every)


def test_only_the_tube_is_dropped_from_verbal_scores():
    verbal = BY_NAME["gcs_verbal"]
    assert verbal.drops("No Response-ETT")
    assert verbal.drops(" No Response-ETT ")
    assert not verbal.drops("No Response")


@pytest.mark.parametrize(
    ("name", "unit", "number", "expected"),
    [
        ("creatinine", "umol/L", 55, 0.622),
        ("creatinine", "µMOL / L", 88.42, 1),
        ("creatinine", "MG/DL", 1.2, 1.2),
        ("creatinine", "None", 1.2, 1.2),
        ("crp", "mg/dL", 12.5, 125),
        ("glucose", "mmol/L", 5.5, 99.1),
        ("glucose_lab", "mmol/L", 5.5, 99.1),
        ("bun", "mmol/L", 7.14, 20),
        ("calcium", "mmol/L", 2.4, 9.62),
        ("ionized_calcium", "mEq/L", 2.4, 1.2),
        ("potassium", "mmol/L", 4.1, 4.1),
        ("bilirubin_direct", "µmol/L", 17.104, 1),
        ("hemoglobin", "g/L", 95, 9.5),
        ("hemoglobin", "mmol/L", 6, 9.67),
        ("hematocrit", "L/L", 0.31, 31),
        ("mchc", "%", 33, 33),
        ("platelets", "10^9/L", 210, 210),
        ("wbc", "/uL", 8300, 8.3),
        ("troponin_t", "ng/L", 14, 0.014),
        ("nt_probnp", "pmol/L", 100, 845.7),
        ("d_dimer", "ug/mL FEU", 0.5, 500),
        ("lactate", "mg/dL", 18.016, 2),
        ("po2", "kPa", 10, 75.0062),
        ("temperature", "°C", 37, 98.6),  # of an item in Fahrenheit, from which series goes on
        ("weight", "lbs", 180, 81.65),
        ("height", "cm", 177.8, 70),  # of an item in inches
        ("urine_output", "L", 1.5, 1500),
        ("urine_output", "ml", 40, 40),
    ],
)
def test_what_rows_name_becomes_the_unit_of_their_item(name, unit, number, expected):
    assert dict(BY_NAME[name].items[0].units)[spelled(unit)](number) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "unit"),
    [("creatinine", "mmol/L"), ("calcium", "g/dL"), ("lactate", "ng/mL"), ("d_dimer", "ng/mL"), ("spo2", "mmHg")],
)
def test_a_unit_that_is_not_listed_is_none(name, unit):
    assert spelled(unit) not in dict(BY_NAME[name].items[0].units)


def test_every_item_with_a_number_has_a_unit_and_no_other_has():
    for variable in load_all():
        for item in variable.items:
            assert (item.unit is not None) == (variable.kind == "numeric") == bool(item.units)
            assert item.unit is None or dict(item.units)[spelled(item.unit)] == Conversion()


@given(st.text("abMGdL/ µμ°%#^*123"), st.sampled_from([" ", "  "]))
def test_units_are_compared_without_blanks_and_spelling_twice_changes_nothing(text, blank):
    assert spelled(spelled(text)) == spelled(text) == spelled(blank.join(text))


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    assert normalise(normalise(text)) == normalise(text)


def _edited(tmp_path: Path, old: str, new: str) -> Path:
    text = FILE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "variables.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    aggregate: mean", "    aggregate: median", "heart_rate: aggregate 'median'"),
        ("    kind: numeric", "    kind: number", "heart_rate: kind 'number'"),
        ("range: [0, 300]", "range: [300, 0]", "heart_rate: range"),
        ("unit: bpm", "unit_: bpm", "heart_rate: unknown field unit_"),
        ("same: [Torr]", "alike: [Torr]", "units: mmHg: unknown field alike"),
        ("same: [Torr]", "same: [mm hg]", "units: mmHg: mm hg stands twice"),
        ("units: {umol/L:", "units: {G / L:", "units: mg/dL: G / L stands twice"),
        ("(range 70-100)}", "(range 70-100), unit: g/L}", "glucose: units are those of mg/dL, 225664 is in g/L"),
        ("name: sbp", "name: heart_rate", "variable heart_rate stands twice"),
        ("itemid: 220179", "itemid: 220050", "sbp names an itemid twice"),
        ("conversion: fahrenheit_to_celsius", "conversion: kelvin", "kelvin"),
        ("per: weight", "per: mass", "urine_rate_6h needs mass"),
        ("hours_before: 24", "hours_before: -1", "height: hours_before -1 is below 0"),
        ("vocabulary: rhythm", "aggregate_: last", "unknown field"),
        ("    - Other\n", "", "heart_rhythm: the vocabulary lacks 'Other'"),
        ("variables:", "variables: [", "cannot be read"),
    ],
)
def test_a_slip_in_the_file_is_named(tmp_path, old, new, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load_all(_edited(tmp_path, old, new))


def test_a_conversion_leaves_a_value_alone_by_default():
    assert Conversion()(81.3) == 81.3


@pytest.mark.real_data
def test_labels_are_those_of_d_items_and_d_labitems(demo_data):
    import duckdb

    folder = demo_data / "mimic-iv-demo"
    rows = duckdb.execute(
        "select itemid::int, label, linksto from read_csv($items, all_varchar = true, nullstr = '')"
        " union all select itemid::int, label, 'labevents' from read_csv($labs, all_varchar = true, nullstr = '')"
        " where fluid = 'Blood'",
        {"items": str(folder / "icu" / "d_items.csv.gz"), "labs": str(folder / "hosp" / "d_labitems.csv.gz")},
    ).fetchall()
    items = {itemid: (label, table) for itemid, label, table in rows}
    listed = [(v, item) for v in load_all() for item in v.items]
    assert {item.itemid for _, item in listed if item.itemid not in items} == set()
    assert [(i.label, v.source) for v, i in listed] == [items[i.itemid] for _, i in listed]


@pytest.mark.real_data
def test_lab_units_are_those_of_the_demo(demo_data):
    """Every unit under which the demo has a result; the haemoglobin of a cell in % of its volume is g/dL."""
    import duckdb

    units = {item.itemid: v.unit for v in load_all() if v.source == "labevents" for item in v.items}
    rows = duckdb.execute(
        "select distinct itemid::int, valueuom from read_csv($path, all_varchar = true, nullstr = '')"
        " where itemid::int in $ids and valueuom is not null",
        {"path": str(demo_data / "mimic-iv-demo" / "hosp" / "labevents.csv.gz"), "ids": list(units)},
    ).fetchall()
    assert len(rows) > 50
    assert [row for row in rows if units[row[0]] != row[1]] == [(51249, "%")]


@pytest.mark.real_data
@pytest.mark.parametrize("table", ["icu/chartevents", "icu/outputevents", "hosp/labevents"])
def test_no_row_of_the_demo_names_a_unit_that_is_converted_or_not_listed(demo_data, table):
    import duckdb

    wanted = needed_itemids(table.partition("/")[2])
    rows = duckdb.execute(
        "select distinct itemid::int, valueuom from read_csv($path, all_varchar = true, nullstr = '')"
        " where itemid::int in $ids and valueuom is not null",
        {"path": str(demo_data / "mimic-iv-demo" / f"{table}.csv.gz"), "ids": list(wanted)},
    ).fetchall()
    assert len(rows) > 5
    assert [row for row in rows if dict(wanted[row[0]].units).get(spelled(row[1])) != Conversion()] == []


@pytest.mark.real_data
def test_every_text_of_the_demo_is_in_the_vocabularies(demo_data):
    import duckdb

    coded = [(v, item.itemid) for v in load_all() if v.vocabulary for item in v.items]
    rows = duckdb.execute(
        "select distinct itemid::int, value from read_csv($path, all_varchar = true, nullstr = '')"
        " where itemid::int in $ids",
        {"path": str(demo_data / "mimic-iv-demo" / "icu" / "chartevents.csv.gz"), "ids": [i for _, i in coded]},
    ).fetchall()
    assert len(rows) > 70
    by_item = {itemid: v for v, itemid in coded}
    assert [(i, text) for i, text in rows if not (by_item[i].knows(text) or by_item[i].drops(text))] == []
