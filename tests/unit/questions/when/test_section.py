"""The page's sections on questions 1 and on what was planted: what they say, and what they must not say."""

import dataclasses
import xml.etree.ElementTree as ElementTree

import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.evaluation.reading import read_probe
from pipeline.files import write_csv
from pipeline.params import Evaluation, Grid, load
from pipeline.presentation.figures import themed
from pipeline.presentation.tables import Cell
from pipeline.questions.known import section as known
from pipeline.questions.known.known import KIND_SCHEMA, nothing_known
from pipeline.questions.known.known import SCHEMA as KNOWN_SCHEMA
from pipeline.questions.when import section as when
from pipeline.questions.when.control import SCHEMA as CONTROL
from pipeline.questions.when.control import image_control
from pipeline.questions.when.gain import CHOSEN_SCHEMA, SCHEMA, gain, source
from pipeline.questions.when.ladder import SCHEMA as LADDER
from pipeline.questions.when.ladder import ladder
from pipeline.questions.when.tables import icd, write
from pipeline.tasks import phenotype_slugs
from tests.support.made_up_runs import fabricate, training

SCALE = training(folds=(0,))
RULE = dataclasses.replace(load().verdicts, permutations=199)
GRID = Grid(
    ("lstm", "transformer", "resnet", "ehr_metadata", "late_fusion", "medfuse"), ("mortality", "phenotype", "los")
)


def tables_of(data, grid, folder):
    reading = source(data, grid, SCALE, Evaluation(0.95, 10, 1), RULE, 60)
    found = gain(reading)
    prevalence = icd(reading.people, phenotype_slugs() if "phenotype" in grid.tasks else ())
    write(found, ladder(reading, found.chosen, found.passed), prevalence, RULE, folder)
    told = ((name, read_probe(data, name, "image_control")) for name in grid.strategies if name == "resnet")
    write_csv(image_control(told, reading.people, reading.sampler, 0.95), folder / "image_control.csv")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("when")
    fabricate(root, SCALE, GRID.strategies, GRID.tasks, stays=900)
    return root / "data"


@pytest.fixture(scope="module")
def tables(data, tmp_path_factory):
    return tables_of(data, GRID, tmp_path_factory.mktemp("tables"))


def confirmed(**values):
    """A row of the confirmatory family."""
    row = dict.fromkeys(SCHEMA) | {
        "task": "mortality",
        "cohort": "base",
        "label": "icu_mortality",
        "stratum": "all",
        "group": "all",
        "metric": "auroc",
        "family": "confirmatory",
        "chosen": True,
        "difference": 0.02,
        "low": -0.01,
        "high": 0.05,
        "p_holm": 1.0,
        "verdict": "undetermined",
    }
    return row | values


def said(*rows, ladder_rows=()):
    steps = pl.DataFrame([dict.fromkeys(LADDER) | row for row in ladder_rows], schema=LADDER, orient="row")
    family = pl.DataFrame(list(rows), schema=SCHEMA, orient="row")
    return when.sentence(family, pl.DataFrame(schema=CHOSEN_SCHEMA), steps, RULE)


def test_the_section_has_an_answer_figures_and_tables_with_sources(tables):
    found = when.answer(tables, RULE)
    assert (found.key, found.question) == ("when", "When does fusion help?")
    assert found.sentence.count("(") >= 6
    assert [figure.name for figure in found.figures] == [
        "when_tasks",
        "when_phenotypes",
        "when_mortality",
        "when_phenotype",
        "when_los",
        "when_ladder_mortality",
        "when_ladder_phenotype",
        "when_ladder_los",
    ]
    for figure in found.figures:
        assert ElementTree.fromstring(figure.svg).get("aria-label")
        assert "var(--c0)" in themed(figure.svg)
        assert (tables.parent / tables.name / figure.source.removeprefix("tables/")).is_file()
    for table in found.tables:
        assert table.stage == "gain"
        assert all(len(row) == len(table.header) for row in table.rows), table.title
        assert (tables / table.source.removeprefix("tables/")).is_file()
    assert "NaN" not in repr(found)
    assert found == when.answer(tables, RULE)  # the same bytes


def test_a_gain_is_named_and_a_mere_lead_is_not():
    unclear = confirmed(cohort="matched", difference=0.3, low=-0.1, high=0.7)
    text = said(unclear, confirmed(verdict="gain", low=0.004))
    assert text.startswith("Fusion beats the best single modality for ICU mortality (base cohort).")
    assert "+0.020 (0.004–0.050) in the base cohort" in text
    assert "+0.300 (−0.100 to 0.700) in the matched cohort" in text
    assert said(unclear).startswith("Whether fusion beats the best single modality cannot be told from these data.")


def test_an_estimate_without_an_interval_is_too_small_to_tell():
    bare = confirmed(low=None, high=None, verdict=None)
    text = said(bare, bare | {"cohort": "matched", "difference": None})
    assert text.startswith("These data are too small to tell whether fusion beats the best single modality.")
    assert "+0.020 (too few stays for an interval) in the base cohort and n. e. in the matched cohort" in text


def test_no_gain_is_said_only_where_all_tasks_say_so():
    none = confirmed(verdict="no gain", low=-0.004, high=0.004, difference=0.0)
    assert said(none).startswith("Fusion adds nothing that matters (±0.01) to the best single modality.")
    assert "cannot be told" in said(none, confirmed(cohort="matched"))
    worse = said(confirmed(difference=-0.03, low=-0.05, high=-0.01))
    assert "cannot be told" in worse
    assert "−0.030 (−0.050 to −0.010) in the base cohort, where it is worse" in worse


def test_single_phenotypes_are_counted_and_the_adjustment_is_told():
    rows = [confirmed(label=f"x{i}", verdict=verdict) for i, verdict in enumerate(("gain", "undetermined", None))]
    text = said(confirmed(), *rows)
    assert "Verdicts on single phenotypes: 1 “gain”, 1 “undetermined” and 1 “not estimable”." in text
    assert "After Holm's adjustment over all 4 tests no difference has p < 0.05." in text
    left = said(confirmed(p_holm=0.01), confirmed(cohort="matched", p_holm=0.02, difference=-0.1))
    assert "is left for 1 in which fusion is better and 1 in which it is worse." in left


def test_the_image_helps_only_where_pixels_beat_the_metadata():
    step = {"task": "mortality", "cohort": "base", "label": "icu_mortality", "metric": "auroc", "rung": "pixels"}
    text = said(confirmed(), ladder_rows=[step | {"against": "metadata", "verdict": "gain"}])
    assert "The image itself helps, pixels beating its metadata, for ICU mortality (base)." in text
    assert "Nowhere do the pixels" in said(
        confirmed(), ladder_rows=[step | {"against": "metadata", "verdict": "undetermined"}]
    )
    for against in ("ehr", None):
        text = said(confirmed(), ladder_rows=[step | {"against": against, "verdict": "gain"}])
        assert "is not known: a rung of the ladder is missing" in text


@pytest.mark.parametrize(
    ("strategies", "tasks", "why"),
    [
        (("lstm",), ("los",), "the grid has no fusion strategy"),
        (("late_fusion",), ("phenotype",), "the grid has no unimodal strategy"),
    ],
)
def test_a_grid_that_cannot_answer_says_what_is_missing(data, tmp_path, strategies, tasks, why):
    found = when.answer(tables_of(data, Grid(strategies, tasks), tmp_path), RULE)
    assert found.sentence == f"Not answered: {why}."
    assert {table.title for table in found.tables} <= {
        "What validation chose",
        "The ladder",
        "Prevalence by ICD version and image",
    }


def test_no_score_on_validation_is_said(tmp_path, tables):
    chosen = pl.DataFrame(
        [dict.fromkeys(CHOSEN_SCHEMA) | {"role": role, "strategy": "lstm"} for role in ("unimodal", "fusion")],
        schema=CHOSEN_SCHEMA,
        orient="row",
    )
    empty = pl.DataFrame(schema=SCHEMA)
    assert when.sentence(empty, chosen, empty, RULE) == (
        "Not answered: no unimodal strategy could be scored on validation, so that none was chosen."
    )


def test_where_the_control_is_not_passed_the_notes_say_so(tables):
    assert "“no gain” is not said for any task: " in " ".join(when.answer(tables, RULE).notes)
    chosen = pl.read_csv(tables / "chosen.csv")
    control = pl.DataFrame(
        [
            dict.fromkeys(CONTROL)
            | {"finding": finding, "strategy": strategy, "task": task, "train_cohort": cohort, "auroc": auroc}
            for strategy, auroc in (("resnet", 0.7), ("late_fusion", 0.9))
            for finding in ("edema", "effusion")
            for task, cohort in (
                ("mortality", "base"),
                ("mortality", "matched"),
                ("phenotype", "base"),
                ("los", "base"),
            )
        ],
        schema=CONTROL,
        orient="row",
    )
    steps = pl.DataFrame(schema=LADDER)

    def said(rule):
        return when.notes(pl.DataFrame(schema=SCHEMA), chosen, control, steps, rule)[1]

    assert "not said for phenotypes (matched) and length of stay (matched):" in said(RULE)
    assert "not said for any task:" in said(dataclasses.replace(RULE, control_auroc=0.8))  # fusion does not count


def test_a_table_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gain\.csv: not found"):
        when.answer(tmp_path, RULE)


def planted(folder, rows, kinds):
    write_csv(pl.DataFrame(rows, schema=KNOWN_SCHEMA, orient="row"), folder / "known.csv")
    write_csv(pl.DataFrame(kinds, schema=KIND_SCHEMA, orient="row"), folder / "known_kinds.csv")


def test_the_known_answers_are_counted_and_drawn(tmp_path):
    row = dict.fromkeys(KNOWN_SCHEMA) | {
        "task": "phenotype",
        "cohort": "base",
        "label": "shock",
        "kind": "ehr_only",
        "strategy": "medfuse",
        "unimodal": "lstm",
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
    kind = dict.fromkeys(KIND_SCHEMA) | {"cohort": "base", "strategy": "medfuse", "labels": 1, "attainable": 0.3}
    kinds = [
        kind | {"kind": "ehr_only", "difference": 0.001},
        kind | {"kind": "synergistic", "difference": 0.2, "low": 0.1, "high": 0.3},
        *(kind | {"kind": name, "strategy": "late_fusion"} for name in ("ehr_only", "synergistic")),
    ]
    planted(tmp_path, [row, right, row | {"label": "other_liver_diseases"}], kinds)
    found = known.answer(tmp_path, RULE)
    assert found is not None
    assert "Of 3 verdicts on labels whose truth was planted: 1 right, 0 wrong, 2 undetermined." in found.sentence
    assert "too small to tell" in found.sentence
    lost = row | {"label": "other_liver_diseases", "high": -0.01}
    planted(tmp_path, [row, right, lost], kinds)
    sentence = known.answer(tmp_path, RULE).sentence
    assert "1 right, 0 wrong, 2 undetermined (1 of them certain losses)." in sentence
    assert "too small to tell" not in sentence
    assert "EHR only 0.001 (too few stays for an interval); synergistic 0.200 (0.100–0.300)" in found.sentence
    assert [figure.name for figure in found.figures] == ["known_kinds_base", "known_base"]
    for figure in found.figures:
        ElementTree.fromstring(figure.svg)
    assert [len(table.rows) for table in found.tables] == [3, 2]
    assert found.tables[1].rows[1] == ("late_fusion", *[Cell(None, None, None)] * 2)


def test_without_a_synthetic_hospital_there_is_no_section(tmp_path):
    by_label, kinds = nothing_known()
    write_csv(by_label, tmp_path / "known.csv")
    write_csv(kinds, tmp_path / "known_kinds.csv")
    assert known.answer(tmp_path, RULE) is None
