"""The page's sections on questions 1 and on what was planted: what they say, and what they must not say."""

import xml.etree.ElementTree as ElementTree

import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.files import write_csv
from pipeline.params import Evaluation, Grid, load
from pipeline.presentation.answers import Chip, Link
from pipeline.presentation.figures import themed
from pipeline.presentation.tables import Cell
from pipeline.questions.known import section as known
from pipeline.questions.known.known import KIND_SCHEMA, nothing_known
from pipeline.questions.known.known import SCHEMA as KNOWN_SCHEMA
from pipeline.questions.known.rules import SCHEMA as RULES_SCHEMA
from pipeline.questions.known.tables import write as write_known
from pipeline.questions.when import section as when
from pipeline.questions.when import tables as of_tables
from pipeline.questions.when.contest import SCHEMA
from pipeline.questions.when.control import USE_SCHEMA
from pipeline.questions.when.gain import CHOSEN_SCHEMA, gain
from pipeline.questions.when.ladder import SCHEMA as LADDER
from pipeline.questions.when.source import ROLES, source
from pipeline.questions.when.tables import SIGNS, chip, rule_in_words, write
from pipeline.questions.when.worth import worth
from pipeline.questions.when.worth_section import write as write_worth
from pipeline.strict import read_yaml
from tests.support.made_up_probes import add_probes
from tests.support.made_up_runs import MODALITIES, fabricate, training
from tests.support.when import RULE, beside

SCALE = training(folds=(0, 1))
GRID = Grid(
    ("lstm", "transformer", "resnet", "ehr_metadata", "late_fusion", "medfuse"), ("mortality", "phenotype", "los")
)
BOTH = ["cxr", "ehr"]


def tables_of(data, grid, folder):
    reading = source(data, grid, SCALE, Evaluation(0.95, 10, 1), RULE, 60)
    write(gain(reading), beside(reading), RULE, folder)
    write_worth(worth(reading, load().worth), folder, 0.95)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("when")
    fabricate(root, SCALE, GRID.strategies, GRID.tasks, stays=900)
    add_probes(root, {name: (MODALITIES.get(name, BOTH), "complete") for name in GRID.strategies}, GRID.tasks)
    return root / "data"


@pytest.fixture(scope="module")
def tables(data, tmp_path_factory):
    return tables_of(data, GRID, tmp_path_factory.mktemp("tables"))


def test_a_label_has_its_title_and_the_file_of_titles_is_read_once(monkeypatch):
    reads = []
    monkeypatch.setattr(of_tables, "read_yaml", lambda path: reads.append(path) or read_yaml(path))
    of_tables._titles.cache_clear()
    told = [of_tables.label_title(label) for label in ("shock", "icu_mortality", "macro", "no_label", "shock")]
    assert told == ["Shock", "ICU mortality", "all labels", "no_label", "Shock"]
    assert len(reads) == 1


def confirmed(**values):
    """A row of the confirmatory family."""
    row = dict.fromkeys(SCHEMA) | {
        "task": "mortality",
        "cohort": "base",
        "label": "icu_mortality",
        "stratum": "all",
        "group": "all",
        "metric": "auroc",
        "strategy": "medfuse",
        "ehr": "lstm",
        "image": "resnet",
        "single": "lstm",
        "family": "confirmatory",
        "chosen": True,
        "difference": 0.02,
        "low": -0.01,
        "high": 0.05,
        "verdict": "undetermined",
        "beyond": False,
        "runs": 3,
        "n": "300",
        "positives": "60",
    }
    return row | values


def used(*rows):
    return pl.DataFrame([dict.fromkeys(USE_SCHEMA) | row for row in rows], schema=USE_SCHEMA, orient="row")


def said(*rows, use=()):
    family = pl.DataFrame(list(rows), schema=SCHEMA, orient="row")
    return when.sentence(family, pl.DataFrame(schema=CHOSEN_SCHEMA), used(*use))


def test_the_section_has_verdicts_an_answer_figures_and_tables_with_sources(tables):
    found = when.answer(tables, RULE)
    assert (found.key, found.question) == ("when", "When does fusion help?")
    assert [figure.name for figure in found.figures] == [
        "when_tasks",
        "when_phenotypes",
        "when_mortality",
        "when_phenotype",
        "when_los",
        "when_ladder_mortality",
        "when_ladder_phenotype",
        "when_ladder_los",
        "when_worth_mortality",
        "when_worth_phenotype",
        "when_defer_mortality",
        "when_defer_phenotype",
        "when_defer_los",
    ]
    for figure in found.figures:
        assert ElementTree.fromstring(figure.svg).get("aria-label")
        assert "var(--c0)" in themed(figure.svg)
        assert (tables.parent / tables.name / figure.source.removeprefix("tables/")).is_file()
    assert [table.title for table in found.tables] == [
        "The confirmatory family",
        "Where the uncertainty comes from",
        "Is the image used at all?",
        "Who had the image",
        "What record and image tell, without a strategy's architecture",
        "Where the difference lies",
        "Every fusion strategy",
        "The ladder",
        "What validation chose",
        "Prevalence by ICD version and image",
        "What acting on it is worth",
        "Deferring the least sure",
    ]
    for table in (*found.tables, found.verdicts):
        assert table.stage == "gain"
        assert all(len(row) == len(table.header) for row in table.rows), table.title
        assert (tables / table.source.removeprefix("tables/")).is_file()
    assert "NaN" not in repr(found)
    assert found == when.answer(tables, RULE)  # the same bytes


@pytest.mark.usefixtures("undrawn")
def test_verdicts_lead_a_row_a_task_and_cohort_with_a_sign_that_needs_no_colour(tables):
    led = when.answer(tables, RULE).verdicts
    assert [row[0] for row in led.rows] == [
        f"{task}, {cohort}"
        for task in ("ICU mortality", "Phenotypes", "Length of stay")
        for cohort in ("base", "matched")
    ]
    assert len({sign for sign, _ in SIGNS.values()}) == len(SIGNS)
    table = pl.read_csv(tables / "gain.csv").filter(family="confirmatory", label="macro", task="phenotype")
    for row, shown in zip(table.iter_rows(named=True), led.rows[2:4], strict=True):
        assert shown[1] == chip(row, RULE)
        assert shown[1][1:] == SIGNS[row["verdict"]]
        smallest = min(row[name] for name in ("difference", "difference_ehr", "difference_image"))
        assert shown[2] == Cell(smallest, row["family_low"], row["family_high"])


def test_a_sentence_beside_a_verdict_has_the_interval_of_the_verdict():
    """The unadjusted one lies below 0, which "undetermined" denies."""
    row = confirmed(difference=-0.022, low=-0.04, high=-0.004, family_low=-0.056, family_high=0.001)
    assert "ICU mortality (AUROC) −0.022 (−0.056 to 0.001) in the base cohort." in said(row)
    shown = when.verdicts(pl.DataFrame([row], schema=SCHEMA, orient="row"), RULE)
    assert shown.rows[0][2] == Cell(-0.022, -0.056, 0.001)
    assert shown.anchors == ("verdict-mortality-base",)
    assert shown.rows[0][-2:] == (
        Link("label by label", "row-mortality-base-icu_mortality"),
        Link("figure", "figure-when_mortality"),
    )
    row |= {"difference_ehr": -0.022, "difference_image": -0.03}
    shown = when.verdicts(pl.DataFrame([row], schema=SCHEMA, orient="row"), RULE)
    assert shown.rows[0][2] == Cell(-0.03, -0.056, 0.001)
    assert shown.rows[0][5] == "resnet"
    told_nothing = confirmed(difference=-0.022, low=-0.04, high=-0.004)
    assert "−0.022 (−0.040 to −0.004), unadjusted in the base cohort." in said(told_nothing)


def test_a_chip_says_by_how_much():
    assert chip(confirmed(verdict="gains", beyond=True), RULE) == Chip("gains by more than 0.01", "▲", "up")
    assert chip(confirmed(verdict="loses"), RULE) == Chip("loses", "▼", "down")
    assert chip(confirmed(verdict=None, beyond=None), RULE) == ""


def test_gains_and_losses_are_named_and_a_mere_lead_is_not():
    unclear = confirmed(cohort="matched", difference=0.3, low=-0.1, high=0.7)
    text = said(unclear, confirmed(verdict="gains", low=0.004))
    assert text.startswith(
        "Held against the record alone and the image alone, and with all comparisons allowed for, fusion gains for ICU "
        "mortality (base cohort); it is undetermined for ICU mortality (matched cohort)."
    )
    assert "+0.020 (0.004–0.050), unadjusted in the base cohort" in text
    assert "+0.300 (−0.100 to 0.700), unadjusted in the matched cohort" in text
    none = said(unclear)
    assert none.startswith(
        "Nowhere does fusion gain or lose for certain: it is undetermined for ICU mortality (matched cohort)."
    )
    assert "fusion loses for ICU mortality (base cohort)." in said(confirmed(verdict="loses"))
    for word in ("beats", "helps"):
        assert word not in text + none


def test_where_nothing_can_be_tested_the_reason_is_told():
    bare = confirmed(verdict="not testable", low=None, high=None)
    few = said(bare, bare | {"cohort": "matched", "difference": None})
    assert few.startswith("Whether fusion helps is not testable here: too few test stays with the rarer outcome.")
    assert "+0.020 (too few stays for an interval) in the base cohort and not estimable in the matched cohort" in few
    luck = "one run: luck of training not included"
    assert f"not testable here: {luck}." in said(bare | {"note": luck})
    family = pl.DataFrame([bare | {"note": luck}], schema=SCHEMA, orient="row")
    assert "One run: luck of training not included." in when.verdicts(family, RULE).note
    steps, chosen = pl.DataFrame(schema=LADDER), pl.DataFrame(schema=CHOSEN_SCHEMA)
    notes = " ".join(when.notes(family, chosen, steps, RULE))
    assert "nothing is confirmed" in notes
    several = pl.DataFrame([confirmed()], schema=SCHEMA, orient="row")
    assert "nothing is confirmed" not in " ".join(when.notes(several, chosen, steps, RULE))


def test_single_phenotypes_are_counted_and_so_are_those_who_use_the_image():
    rows = [confirmed(label=f"x{i}", verdict=verdict) for i, verdict in enumerate(("gains", "undetermined", "gains"))]
    text = said(confirmed(), *rows, use=[{"strategy": "a", "passed": True}, {"strategy": "b", "passed": False}])
    assert "Verdicts on single phenotypes: 2 “gains” and 1 “undetermined”." in text
    assert text.endswith("That a fusion strategy uses the image is shown, on some task and cohort, for 1 of 2: a.")
    assert said(confirmed()).endswith("is not known: there is no probe of one.")


@pytest.mark.parametrize(
    ("passed", "end"),
    [
        ({"b": False}, "That the one fusion strategy, b, uses the image at all is not shown on any task and cohort."),
        ({"b": True}, "That the one fusion strategy, b, uses the image is shown on some task and cohort."),
        (
            {"a": False, "b": False},
            "That any of 2 fusion strategies uses the image at all is not shown on any task and cohort.",
        ),
        (
            {"a": True, "b": True, "c": False},
            "That a fusion strategy uses the image is shown, on some task and cohort, for 2 of 3: a and b.",
        ),
    ],
)
def test_who_uses_the_image_is_told_of_none_one_and_several(passed, end):
    assert said(confirmed(), use=[{"strategy": name, "passed": each} for name, each in passed.items()]).endswith(end)


def test_one_comparison_and_no_comparison_in_the_notes():
    chosen = pl.DataFrame(
        [dict.fromkeys(CHOSEN_SCHEMA) | {"role": role, "strategy": role, "task": "mortality"} for role in ROLES],
        schema=CHOSEN_SCHEMA,
        orient="row",
    )
    family, steps = pl.DataFrame([confirmed()], schema=SCHEMA, orient="row"), pl.DataFrame(schema=LADDER)
    assert when.notes(family, chosen, steps, RULE)[1].startswith("The confirmatory family has 1 comparison, one a task")
    assert "(1 candidate, declared in verdicts.fusion)" in when.notes(family, chosen, steps, RULE)[1]
    assert not [note for note in when.notes(family.clear(), chosen, steps, RULE) if "confirmatory" in note]


def test_cohorts_of_a_task_are_told_together():
    rows = [confirmed(cohort=cohort, verdict="gains") for cohort in ("base", "matched")]
    assert "fusion gains for ICU mortality (base and matched cohorts). Fusion's score less" in said(*rows)


@pytest.mark.usefixtures("undrawn")
def test_the_notes_say_the_rule_its_margins_and_how_many_candidates_there_were(tables):
    notes = when.answer(tables, RULE).notes
    assert rule_in_words(RULE) in notes[0]
    assert "Margins: Accuracy 0.01, AUROC 0.01." in notes[0]
    assert notes[1].startswith(
        "The confirmatory family has 56 comparisons, one a task, cohort and label, of the fusion strategy that "
        "validation chose (2 candidates, declared in verdicts.fusion) with the best on the record (2 candidates) and "
        "the best on the image (1 candidate)."
    )
    assert notes[-1] == "The ladder lacks rungs in places: ehr_presence is not in the grid."


@pytest.mark.parametrize(
    ("strategies", "tasks", "why"),
    [
        (("lstm", "resnet"), ("los",), "the grid has no strategy of verdicts.fusion"),
        (("late_fusion", "resnet"), ("phenotype",), "the grid has no EHR-only strategy"),
        (("late_fusion", "lstm"), ("phenotype",), "the grid has no image-only strategy"),
    ],
)
def test_a_grid_that_cannot_answer_says_what_is_missing(data, tmp_path, strategies, tasks, why):
    found = when.answer(tables_of(data, Grid(strategies, tasks), tmp_path), RULE)
    assert found.sentence == f"Not answered: {why}."
    assert found.verdicts is None
    assert {table.title for table in found.tables} <= {
        "What validation chose",
        "Is the image used at all?",
        "The ladder",
        "Prevalence by ICD version and image",
    }


def test_no_score_on_validation_is_said(tables):
    chosen = pl.DataFrame(
        [dict.fromkeys(CHOSEN_SCHEMA) | {"role": role, "strategy": "lstm"} for role in ("ehr", "image", "fusion")],
        schema=CHOSEN_SCHEMA,
        orient="row",
    )
    assert when.sentence(pl.DataFrame(schema=SCHEMA), chosen, used()) == (
        "Not answered: no EHR-only strategy could be scored on validation, so that none was chosen."
    )


def test_a_table_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gain\.csv: not found"):
        when.answer(tmp_path, RULE)


def planted(folder, rows, kinds, rules=()):
    write_csv(pl.DataFrame(rows, schema=KNOWN_SCHEMA, orient="row"), folder / "known.csv")
    write_csv(pl.DataFrame(kinds, schema=KIND_SCHEMA, orient="row"), folder / "known_kinds.csv")
    write_csv(pl.DataFrame(rules, schema=RULES_SCHEMA, orient="row"), folder / "known_rules.csv")


def test_the_known_answers_are_counted_and_drawn(tmp_path):
    row = dict.fromkeys(KNOWN_SCHEMA) | {
        "task": "phenotype",
        "cohort": "base",
        "label": "shock",
        "kind": "ehr_only",
        "named": "ehr_only",
        "strategy": "medfuse",
        "ehr": "lstm",
        "attainable": 0.0,
        "found": 0.001,
        "low": -0.02,
        "high": 0.02,
        "verdict": "undetermined",
        "judgement": "undetermined",
    }
    right = row | {
        "label": "septicemia_except_in_labor",
        "kind": "synergistic",
        "attainable": 0.3,
        "judgement": "right",
    }
    kind = dict.fromkeys(KIND_SCHEMA) | {"cohort": "base", "labels": 1, "attainable": 0.3}
    chosen = kind | {"strategy": "medfuse", "chosen": True}
    kinds = [
        chosen | {"kind": "ehr_only", "difference": 0.001},
        chosen | {"kind": "synergistic", "difference": 0.2, "low": 0.1, "high": 0.3},
        *(kind | {"kind": name, "strategy": "late_fusion", "chosen": False} for name in ("ehr_only", "synergistic")),
    ]
    rule = dict.fromkeys(RULES_SCHEMA, 0) | {"cohort": "base", "rule": "paired_t", "labels": 3, "gain_wrong": 2}
    planted(tmp_path, [row, right, row | {"label": "other_liver_diseases"}], kinds, [rule])
    found = known.answer(tmp_path, RULE)
    assert found is not None
    assert "held against the planted truth of 3 labels: 1 right and 2 “undetermined”." in found.sentence
    assert "too small to tell" in found.sentence
    assert "names the planted kind of 2 of 3 phenotypes in the base cohort (3 testable)." in found.sentence
    lost = row | {"label": "other_liver_diseases", "high": -0.01, "judgement": "loses"}
    planted(tmp_path, [row, right, lost], kinds)
    sentence = known.answer(tmp_path, RULE).sentence
    assert "3 labels: 1 right, 1 “loses” and 1 “undetermined”." in sentence
    assert "too small to tell" not in sentence
    planted(tmp_path, [row | {"judgement": "right"}], [])
    assert known.answer(tmp_path, RULE).sentence == (
        "Verdicts were held against the planted truth of 1 label: 1 right. "
        "Information names the planted kind of 1 of 1 phenotype in the base cohort (1 testable)."
    )
    planted(tmp_path, [row | {"judgement": None, "named": None}], [])
    assert "of 1 label: 1 without a judgement." in known.answer(tmp_path, RULE).sentence
    assert "EHR only 0.001 (too few stays for an interval); synergistic 0.200 (0.100–0.300)" in found.sentence
    assert [figure.name for figure in found.figures] == ["known_kinds_base", "known_base"]
    for figure in found.figures:
        ElementTree.fromstring(figure.svg)
    assert [len(table.rows) for table in found.tables] == [1, 3, 2]
    assert found.tables[0].rows[0] == ("paired t-test over folds (p < 0.05)", "base", 3, 0, 0, 2, 0, 0, 0)
    assert [cells[0] for cells in found.tables[2].rows] == ["chosen by label", "late_fusion"]
    assert found.tables[2].rows[1] == ("late_fusion", *[Cell(None, None, None)] * 2)


def test_without_a_synthetic_hospital_there_is_no_section(tmp_path):
    write_known(nothing_known(), tmp_path)
    assert known.answer(tmp_path, RULE) is None
