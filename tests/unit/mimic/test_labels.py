"""Labels: deaths, classes of length of stay, HCUP's tables, the later codes, and what is counted."""

import re
from datetime import datetime, timedelta

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline import tasks
from pipeline.errors import InputError
from pipeline.mimic import phenotypes
from pipeline.mimic.labels import compare_maps, los_class, make_labels, outcome_labels, summarise
from pipeline.mimic.phenotypes import classify, load_ccs, parse_icd9, parse_icd10

IN = datetime(2150, 3, 1, 12)
HOUR = timedelta(hours=1)
SLUGS = tasks.phenotype_slugs()


def stays(*rows):
    """Stays (stay_id, hadm_id) of three days."""
    return pl.DataFrame(
        [(s, h, IN, IN + 72 * HOUR, 3.0, 10, s % 2 == 0) for s, h in rows],
        schema={
            "stay_id": pl.Int32,
            "hadm_id": pl.Int32,
            "intime": pl.Datetime("us"),
            "outtime": pl.Datetime("us"),
            "los_days": pl.Float64,
            "icd_version": pl.Int16,
            "has_cxr": pl.Boolean,
        },
        orient="row",
    )


def admissions(*rows):
    """Admissions (hadm_id, deathtime, hospital_expire_flag), discharged after 80 h."""
    return pl.DataFrame(
        [(h, d, IN + 80 * HOUR, f) for h, d, f in rows],
        schema={
            "hadm_id": pl.Int32,
            "deathtime": pl.Datetime("us"),
            "dischtime": pl.Datetime("us"),
            "hospital_expire_flag": pl.Int16,
        },
        orient="row",
    )


def diagnoses(*rows):
    """Diagnoses (hadm_id, icd_version, icd_code)."""
    return pl.DataFrame(
        list(rows), schema={"hadm_id": pl.Int32, "icd_version": pl.Int16, "icd_code": pl.String}, orient="row"
    )


def phenotypes_of(*codes):
    """Slugs of an admission with these (icd_version, icd_code)."""
    table = classify(diagnoses(*((11, version, code) for version, code in codes)))
    row = make_labels(stays((31, 11)), admissions((11, None, 0)), table).row(0, named=True)
    return {slug for slug in SLUGS if row[slug]}


@pytest.mark.parametrize(
    ("death", "flag", "icu", "hospital"),
    [
        (None, 0, False, False),
        (IN + 60 * HOUR, 1, True, True),
        (IN + 72 * HOUR, 1, True, True),  # both ends belong to the stay
        (IN, 1, True, True),
        (IN - HOUR, 1, False, True),
        (IN + 72 * HOUR + timedelta(seconds=1), 1, False, True),
        (None, 1, False, True),  # without deathtime the discharge counts: here after the stay
    ],
)
def test_deaths(death, flag, icu, hospital):
    labels = outcome_labels(stays((31, 11)), admissions((11, death, flag)))
    assert labels.row(0, named=True) == {
        "stay_id": 31,
        "icu_mortality": icu,
        "hospital_mortality": hospital,
        "los_class": 1,
    }


def test_a_death_without_time_is_dated_by_the_discharge():
    table = admissions((11, None, 1)).with_columns(dischtime=IN + 70 * HOUR)
    assert outcome_labels(stays((31, 11)), table)["icu_mortality"].item() is True


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        *[(2.0, 0), (2.999, 0), (3.0, 1), (4.0, 2), (5.0, 3), (6.0, 4), (6.999, 4), (7.0, 5), (13.999, 5), (14.0, 6)],
        *[(102.0, 6), (1000.0, 6), (1.999, None), (None, None)],
    ],
)
def test_classes_of_length(days, expected):
    assert pl.DataFrame({"los_days": [days]}, schema={"los_days": pl.Float64}).select(los_class()).item() == expected


@given(st.floats(2, 500))
def test_each_length_lies_in_its_class(days):
    edges = [*tasks.LOS_EDGES, float("inf")]
    found = pl.DataFrame({"los_days": [days]}).select(los_class()).item()
    assert edges[found] <= days < edges[found + 1]


def test_a_stay_that_has_no_class_is_named():
    short = stays((31, 11), (32, 11)).with_columns(los_days=pl.Series([3.0, 1.5]))
    with pytest.raises(InputError, match=r"stay_id 32.*cohort\.min_stay_hours"):
        outcome_labels(short, admissions((11, None, 0)))


def test_tables_are_hcups():
    codes9, labels9 = parse_icd9(phenotypes.read_icd9())
    codes10, labels10 = parse_icd10(phenotypes.read_icd10())
    assert (len(codes9), len(codes10)) == (15_072, 72_446)
    for row in yaml.safe_load(tasks.PHENOTYPES_FILE.read_text())["phenotypes"]:
        assert labels9[row["ccs"]].rstrip() == row["label"]
        assert labels10[row["ccs"]].rstrip().replace("  ", " ") == row["label"]


def test_number_of_icd9_codes_per_phenotype():
    """As in the MIMIC-III benchmark's definitions, which are CCS 2015 (reference, table B.3)."""
    expected = [6, 25, 40, 13, 19, 15, 145, 28, 16, 20, 57, 12, 5, 2, 15, 40, 38, 24, 62, 60, 17, 62, 16, 26, 4]
    nine = load_ccs().filter(pl.col("icd_version") == 9)
    found = [nine.filter(ccs=category).height for category in phenotypes.phenotype_categories().values()]
    assert found == expected


def test_a_repeated_line_is_harmless_and_a_contradiction_is_not():
    assert parse_icd9("1    One\n     001 002\n     001 002\n")[0] == {"001": 1, "002": 1}
    with pytest.raises(ValueError, match="002"):
        parse_icd9("1    One\n     001 002\n2    Two\n     002\n")
    row = "'{}','{}',\"text\",\"label\",'1'\n"
    with pytest.raises(ValueError, match="A01"):
        parse_icd10(("code,category,text,label,more\n" + row.format("A01", 1) + row.format("A01", 2)).encode())


def test_each_code_is_known_once():
    table = load_ccs()
    assert not table.select("icd_version", "icd_code").is_duplicated().any()
    assert set(table["source"]) == {"hcup", "later"}


def test_later_codes_take_the_category_of_the_code_that_they_replace():
    hcup = {(v, c): ccs for v, c, ccs, source in load_ccs().iter_rows() if source == "hcup"}
    later = phenotypes.later_codes()
    assert set(later) == {10}
    for code, entry in later[10].items():
        assert set(entry) == {"ccs", "parent", "note"}, code
        assert (10, code) not in hcup, code
        assert hcup[10, entry["parent"]] == entry["ccs"], code


@pytest.mark.parametrize(
    ("version", "code", "slug"),
    [
        (10, "J9601", "respiratory_failure_insufficiency_arrest_adult"),  # what GEM translations miss
        (10, "J90", "pleurisy_pneumothorax_pulmonary_collapse"),
        (10, "I480", "cardiac_dysrhythmias"),
        (10, "I4820", "cardiac_dysrhythmias"),  # created later
        (10, "N1832", "chronic_kidney_disease"),
        (10, "N183", "chronic_kidney_disease"),
        (10, "E8721", "fluid_and_electrolyte_disorders"),
        (10, "J1282", "pneumonia_except_that_caused_by_tuberculosis_or_sexually_transmitted_disease"),
        (10, "I21A9", "acute_myocardial_infarction"),
        (10, "I2510", "coronary_atherosclerosis_and_other_heart_disease"),
        (10, "N179", "acute_and_unspecified_renal_failure"),
        (9, "5849", "acute_and_unspecified_renal_failure"),
        (9, "0389", "septicemia_except_in_labor"),
        (9, "v4511", "chronic_kidney_disease"),
        (10, "a41.9 ", "septicemia_except_in_labor"),
    ],
)
def test_codes_by_hand(version, code, slug):
    assert phenotypes_of((version, code)) == {slug}


@pytest.mark.parametrize(
    ("version", "code"),
    [
        (9, "E8720"),  # the string of acidosis in ICD-10: an external cause in ICD-9
        (10, "V450"),  # a cardiac device in ICD-9
        (10, "J960"),  # a header, no code: no falling back on what begins alike
        (10, "J96019"),
        (10, "N18"),
        (10, "U071"),
        (10, "I1A0"),
        (9, "J9601"),
        (8, "5849"),
    ],
)
def test_codes_of_no_phenotype(version, code):
    assert phenotypes_of((version, code)) == set()


def test_any_diagnosis_of_the_admission_counts_and_none_of_another():
    table = classify(diagnoses((11, 9, "5849"), (11, 9, "4019"), (11, 9, "4019"), (12, 10, "I10"), (13, 9, "0389")))
    labels = make_labels(stays((32, 12), (31, 11), (33, 14)), admissions((11, None, 0), (12, None, 0)), table)
    assert labels.columns == ["stay_id", "icu_mortality", "hospital_mortality", "los_class", *SLUGS]
    assert labels["stay_id"].to_list() == [31, 32, 33]
    assert labels.schema["los_class"] == pl.Int8
    assert labels.select(SLUGS).null_count().sum_horizontal().item() == 0
    found = [{slug for slug in SLUGS if row[slug]} for row in labels.iter_rows(named=True)]
    assert found == [
        {"acute_and_unspecified_renal_failure", "essential_hypertension"},
        {"essential_hypertension"},
        set(),
    ]


def test_stays_of_one_admission_share_its_labels_and_each_has_its_own_death_and_length():
    two = stays((31, 11), (32, 11)).with_columns(
        intime=pl.Series([IN, IN + 72 * HOUR]),
        outtime=pl.Series([IN + 72 * HOUR, IN + 192 * HOUR]),
        los_days=pl.Series([3.0, 5.0]),
    )
    died = admissions((11, IN + 190 * HOUR, 1))
    labels = make_labels(two, died, classify(diagnoses((11, 9, "5849"))))
    assert labels["icu_mortality"].to_list() == [False, True]
    assert labels["hospital_mortality"].to_list() == [True, True]
    assert labels["los_class"].to_list() == [1, 3]
    assert labels["acute_and_unspecified_renal_failure"].to_list() == [True, True]


LEGACY_ICD10 = [6, 20, 6, 12, 15, 11, 119, 22, 15, 16, 35, 10, 5, 2, 13, 23, 11, 21, 56, 49, 15, 47, 12, 24, 4]


def test_the_legacy_lists_have_the_codes_that_were_published():
    """As many as the benchmark's file has per phenotype (reference, table B.3); no code twice in a list."""
    lists = yaml.safe_load(phenotypes.LEGACY_FILE.read_text())
    assert tuple(lists) == SLUGS
    assert [len(set(codes.split())) for codes in lists.values()] == LEGACY_ICD10
    assert [len(codes.split()) for codes in lists.values()] == LEGACY_ICD10
    assert all(re.fullmatch(r"[A-Z]\w{2,6}", code) for codes in lists.values() for code in codes.split())


RESPIRATORY = "respiratory_failure_insufficiency_arrest_adult"


@pytest.mark.parametrize(
    ("version", "code", "slugs"),
    [
        (10, "J9600", {RESPIRATORY}),
        *[(10, code, set()) for code in ("J9601", "J80", "J90", "I480", "I4820", "N1832", "A4181", "U071")],
        (10, "R7881", {"septicemia_except_in_labor"}),  # bacteraemia, which HCUP counts elsewhere
        (10, "J99", {RESPIRATORY, "other_lower_respiratory_disease"}),  # in two lists
        (9, "51881", {RESPIRATORY}),
        (9, "J9600", {RESPIRATORY}),  # a bare code is the key
        (10, "V450", {"conduction_disorders"}),
        (10, "J960", set()),  # never by prefix
        (10, "j96.00 ", {RESPIRATORY}),
    ],
)
def test_the_legacy_map_by_hand(version, code, slugs):
    table = classify(diagnoses((11, version, code)), "legacy_medfuse")
    row = make_labels(stays((31, 11)), admissions((11, None, 0)), table).row(0, named=True)
    assert {slug for slug in SLUGS if row[slug]} == slugs


CODES = ((11, 10, "J9601"), (12, 10, "J9600"), (12, 10, "R7881"), (99, 10, "J9601"), (13, 10, "J99"))


def of_admissions(**many):
    """Stays of admissions: so many of each, as h11=20."""
    hadm_ids = [int(name[1:]) for name, count in many.items() for _ in range(count)]
    return stays(*enumerate(hadm_ids, 31))


def test_the_report_counts_what_the_two_maps_tell_apart():
    found = compare_maps(of_admissions(h11=10, h12=20, h13=10, h14=10), diagnoses(*CODES))
    assert tuple(found) == SLUGS
    assert found[RESPIRATORY] == {"hcup": 30, "legacy_medfuse": 30, "only_hcup": 10, "only_legacy_medfuse": 10}
    assert found["septicemia_except_in_labor"] == {
        "hcup": 0,
        "legacy_medfuse": 20,
        "only_hcup": 0,
        "only_legacy_medfuse": 20,
    }
    assert set(found["shock"].values()) == {0}


@pytest.mark.parametrize(
    ("cohort", "expected"),
    [
        # 3 by one map alone: with what the other map alone gives, both counts less the 57 that they share
        ({"h11": 3, "h12": 57, "h14": 140}, (60, 57, "<10", "hidden")),
        ({"h11": 30, "h12": 57, "h14": 140}, (87, 57, 30, 0)),
        ({"h11": 30, "h12": 4, "h14": 140}, (34, "<10", "hidden", 0)),  # 30 of 34 would tell the 4
        ({"h11": 1, "h12": 2, "h13": 1}, ("<10", "<10", "<10", "<10")),
    ],
)
def test_the_few_whom_one_map_alone_finds_do_not_follow(cohort, expected):
    found = compare_maps(of_admissions(**cohort), diagnoses(*CODES))
    assert tuple(found[RESPIRATORY].values()) == expected


def test_unknown_codes_and_strata_are_counted():
    table = classify(
        diagnoses(*[(11, 10, "ZZZ")] * 10, (11, 10, "YYY"), (11, 10, "I4820"), (12, 9, "4019"), (99, 9, "XXX"))
    )
    cohort = of_admissions(h11=20, h12=20, h13=20)
    deaths = admissions((11, None, 1), (12, None, 0), (13, None, 0))
    counts = summarise(cohort, make_labels(cohort, deaths, table), deaths, table)
    assert counts["codes"] == {
        "rows": 13,
        "rows_by_a_later_code": 1,
        "unknown_rows": 11,
        "unknown_codes": 2,
        "unknown_top_20": [{"icd_version": 10, "icd_code": "ZZZ", "rows": 10}],  # a rare one may be one patient's
        "unknown_rows_of_all_admissions": 12,
    }
    assert counts["stays"] == 60
    assert counts["los_class"] == {"1": 60}
    assert counts["deaths_dated_by_discharge"] == 20
    assert counts["stays_without_diagnosis"] == 20
    assert counts["positives"]["hospital_mortality"] == 20
    strata = counts["prevalence_by_icd_version_and_image"]
    assert [(row["icd_version"], row["has_cxr"], row["stays"]) for row in strata] == [(10, False, 30), (10, True, 30)]
    assert [row["cardiac_dysrhythmias"] for row in strata] == [10, 10]


def test_no_label_of_fewer_than_ten_is_counted_nor_of_all_but_a_few():
    table = classify(diagnoses((11, 10, "I4820"), (12, 9, "4019"), (13, 10, "R7881")))
    cohort = of_admissions(h11=5, h12=95)
    deaths = admissions((11, None, 1), (12, None, 0))
    counts = summarise(cohort, make_labels(cohort, deaths, table), deaths, table)
    assert counts["positives"]["hospital_mortality"] == counts["positives"]["cardiac_dysrhythmias"] == "<10"
    assert counts["positives"]["essential_hypertension"] == "hidden"  # 95 of 100
    assert counts["deaths_dated_by_discharge"] == "<10"
    strata = counts["prevalence_by_icd_version_and_image"]
    assert [row["stays"] for row in strata] == [50, 50]
    assert [row["hospital_mortality"] for row in strata] == ["<10", "<10"]
    assert [row["essential_hypertension"] for row in strata] == ["hidden", "hidden"]
    assert [row["shock"] for row in strata] == [0, 0]
