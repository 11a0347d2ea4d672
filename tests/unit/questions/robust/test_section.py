"""The robustness section and reliance on the page: what they say is what their tables say, and no more."""

import dataclasses
import re
import shutil

import polars as pl
import pytest

from pipeline import files
from pipeline.errors import InputError
from pipeline.params import Evaluation, Grid, ProbeScale
from pipeline.presentation.tables import Cell
from pipeline.presentation.text import with_interval
from pipeline.questions.robust.overlap import overlap
from pipeline.questions.robust.robustness import robustness
from pipeline.questions.robust.section import WHO, _change, _family, answer
from pipeline.questions.when.gain import gain
from pipeline.questions.when.reliance import reliance as reliance_tables
from pipeline.questions.when.reliance_section import reliance
from pipeline.questions.when.source import source
from tests.support.made_up_probes import add_probes
from tests.support.made_up_runs import fabricate, training
from tests.support.when import RULE

SCALE = dataclasses.replace(training(folds=(0,), missing=(0.0, 0.5)), train_mechanisms=("mcar", "mar"))
EVALUATION = Evaluation(confidence=0.95, ece_bins=10, seed=1)
PROBE = ProbeScale(test_missing=(0.5, 1.0), mechanisms=("mcar", "mar"), last_hours=(12,), stays=20, permutations=2)
CARDS = {
    "lstm": (["ehr"], "complete"),
    "resnet": (["cxr"], "native"),
    "late_fusion": (["cxr", "ehr"], "complete"),
    "drfuse": (["cxr", "ehr"], "native"),
}
TASKS = ("mortality", "los")
REMOVED = "With every image removed at inference, on average (exploratory, of patients alone),"


def write(data, folder, strategies, tasks):
    grid = Grid(tuple(strategies), tuple(tasks))
    files.write_csv(gain(source(data, grid, SCALE, EVALUATION, RULE, 40)).table, folder / "gain.csv")
    tables = robustness(data, grid, SCALE, PROBE, EVALUATION, 40) | {"overlap": overlap(data, (0,))}
    tables["reliance"], tables["image_control"] = reliance_tables(data, grid, SCALE, EVALUATION, 40)
    for name, table in tables.items():
        files.write_csv(table, folder / f"{name}.csv")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("fabricated")
    fabricate(root, SCALE, list(CARDS), TASKS, stays=600)
    add_probes(root, CARDS, TASKS)
    return root / "data"


@pytest.fixture(scope="module")
def tables(made, tmp_path_factory):
    return write(made, tmp_path_factory.mktemp("tables"), CARDS, TASKS)


@pytest.fixture
def own(tables, tmp_path):
    """A copy of the tables, to be changed."""
    shutil.copytree(tables, tmp_path / "own")
    return tmp_path / "own"


def set_losses(folder, low, high):
    """All intervals of the families' difference of losses."""
    path = folder / "robustness_families.csv"
    frame = pl.read_csv(path)
    chosen = (pl.col("family") == "difference") & (pl.col("rate") == 1) & (pl.col("modality") == "cxr")
    frame = frame.with_columns(
        loss_low=pl.when(chosen).then(low).otherwise("loss_low"),
        loss_high=pl.when(chosen).then(high).otherwise("loss_high"),
    )
    files.write_csv(frame, path)


def set_leads(folder, low, pays, stops, lucky=None, stops_low=0.1, runs=3):
    """drfuse's lead over the EHR alone with every image there, and when it ends; `lucky`: with the luck of training."""
    path = folder / "gain.csv"
    frame = pl.read_csv(path, infer_schema_length=None)
    chosen = (pl.col("strategy") == "drfuse") & (pl.col("stratum") == "all") & ~pl.col("chosen")
    above = pl.when(chosen).then(low if lucky is None else lucky).otherwise(0.3)
    files.write_csv(frame.with_columns(low_ehr=above), path)
    path = folder / "robustness.csv"
    frame = pl.read_csv(path, infer_schema_length=None)
    chosen = (pl.col("strategy") == "drfuse") & (pl.col("modality") == "none")
    lead = pl.when(pl.col("strategy") == "lstm").then(None).otherwise(pl.when(chosen).then(low).otherwise(-0.1))
    files.write_csv(frame.with_columns(lead_low=lead, runs=pl.lit(runs)), path)
    path = folder / "robustness_summary.csv"
    frame = pl.read_csv(path, infer_schema_length=None)
    files.write_csv(
        frame.with_columns(
            pays=pl.lit(pays),
            stops=pl.lit(stops),
            stops_low=pl.lit(stops_low, pl.Float64),
            stops_high=pl.lit(None, pl.Float64),
        ),
        path,
    )


@pytest.mark.usefixtures("undrawn")
def test_the_sentence_holds_the_numbers_of_the_table(tables):
    sentence = answer(tables, 0.95).sentence
    rows = pl.read_csv(tables / "robustness_families.csv").filter(
        train_cohort="matched", train_missing=0.0, modality="cxr", mechanism="mcar", rate=1.0
    )
    for task, metric in (("mortality", "auroc"), ("los", "accuracy")):
        for row in rows.filter(task=task, metric=metric).iter_rows(named=True):
            loss, low, high = (row[name] for name in ("loss", "loss_low", "loss_high"))
            if row["family"] != "difference":
                if low is None or high is None or low <= 0 <= high:
                    told = f"is not shown to change ({Cell(-loss, None, None).estimate}, "
                elif loss > 0:
                    told = f"falls by {with_interval(loss, low, high)}"
                else:
                    told = f"rises by {with_interval(-loss, -high, -low)}"
                assert told in sentence


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.2, -0.1, "the former fare better on ICU mortality (exploratory)"),
        (0.1, 0.2, "the former fare worse on ICU mortality (exploratory)"),
        (-0.1, 0.1, "too small to tell"),
        (-0.1, 0.0, "too small to tell"),
        (None, None, "too small to tell"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_a_difference_is_claimed_where_its_interval_carries_it(own, low, high, said):
    set_losses(own, low, high)
    sentence = answer(own, 0.95).sentence
    assert said in sentence
    assert ("the former fare" in sentence) == (said[:3] == "the")


@pytest.mark.usefixtures("undrawn")
def test_a_loss_that_is_not_estimable_is_told_so(own):
    path = own / "robustness_families.csv"
    frame = pl.read_csv(path, infer_schema_length=None)
    hidden = pl.lit(None, pl.Float64)

    def without(tasks):
        at = pl.col("task").is_in(tasks)
        losses = {name: pl.when(at).then(hidden).otherwise(name) for name in ("loss", "loss_low", "loss_high")}
        files.write_csv(frame.with_columns(**losses), path)
        return answer(own, 0.95).sentence

    some = without(["mortality"])
    assert some.startswith(f"{REMOVED} accuracy on length of stay ")
    assert " for the one strategy built for missing images and " in some
    assert "What is lost with the images is not estimable for ICU mortality." in some
    none = without(["mortality", "los"])
    assert none.startswith("What is lost with the images is not estimable for ICU mortality and length of stay. ")
    assert "on average" not in none
    assert "n. e." not in some + none


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("low", "high", "told"), [(-0.3, -0.1, True), (-0.3, 0.1, False), (None, None, False)])
def test_who_loses_less_and_had_less_is_said_to(own, low, high, told):
    set_losses(own, -0.2, -0.1)
    path = own / "robustness_families.csv"
    frame = pl.read_csv(path, infer_schema_length=None)
    chosen = (pl.col("family") == "difference") & (pl.col("modality") == "none")
    changes = {"value": -0.2, "value_low": low, "value_high": high}
    frame = frame.with_columns(**{k: pl.when(chosen).then(v).otherwise(k) for k, v in changes.items()})
    files.write_csv(frame, path)
    assert (
        "and had less to lose: with every image there they score 0.200 (0.100–0.300) lower"
        in answer(own, 0.95).sentence
    ) == told


@pytest.mark.usefixtures("undrawn")
def test_only_what_leads_for_certain_can_stop_paying(own):
    set_leads(own, 0.01, "until", 0.4)
    sentence = answer(own, 0.95).sentence
    assert (
        "On ICU mortality 1 of 2 fusion strategies leads the record alone (lstm) with every image there "
        "(exploratory, one at a time): drfuse pays until 40% (10%–never) of images are removed." in sentence
    )
    set_leads(own, -0.01, "until", 0.4)
    assert "at which fusion stops paying is too small to tell" in answer(own, 0.95).sentence


@pytest.mark.usefixtures("undrawn")
def test_a_lead_outlasts_the_images_where_its_interval_does(own):
    set_leads(own, 0.01, "always", None, stops_low=None)
    assert "drfuse pays even with every image removed" in answer(own, 0.95).sentence
    set_leads(own, 0.01, "always", None, stops_low=0.146)
    found = answer(own, 0.95)
    assert "drfuse's lead is not seen to end (its end may lie at 15% of images removed, or nowhere)." in found.sentence
    assert "pays even" not in found.sentence
    table = next(each for each in found.tables if each.title.startswith("ICU mortality: AUROC with"))
    row = next(row for row in table.rows if row[0] == "drfuse")
    assert row[table.header.index("Stops paying at")] == "never (15%–never)"


@pytest.mark.usefixtures("undrawn")
def test_a_share_that_is_not_estimable_is_told_so(own):
    set_leads(own, 0.01, None, None, stops_low=None)
    assert "drfuse pays until a share that is not estimable" in answer(own, 0.95).sentence


@pytest.mark.usefixtures("undrawn")
def test_nobody_leads_whose_lead_may_be_luck_of_training(own):
    set_leads(own, 0.01, "until", 0.4, lucky=-0.05)
    found = answer(own, 0.95)
    assert "at which fusion stops paying is too small to tell" in found.sentence
    assert found.brief.endswith("No fusion strategy leads the record alone for certain even with every image there.")


@pytest.mark.usefixtures("undrawn")
def test_where_no_interval_knows_of_luck_a_lead_is_of_patients_alone(own):
    set_leads(own, 0.01, "until", 0.4, runs=1)
    found = answer(own, 0.95)
    assert "with every image there (exploratory, one at a time, of patients alone): drfuse" in found.sentence
    assert found.brief.endswith("leads it on length of stay (exploratory, of patients alone).")
    set_leads(own, 0.01, "until", 0.4, lucky=-0.05)
    files.write_csv(pl.read_csv(own / "gain.csv", infer_schema_length=None).clear(), own / "gain.csv")
    assert "(exploratory, one at a time, of patients alone): drfuse" in answer(own, 0.95).sentence


def test_both_tables_are_about_the_same_lead(tables):
    """The rows that are joined; on one label (or one of several classes) both choose the record's strategy alike."""
    gains = pl.read_csv(tables / "gain.csv", infer_schema_length=None).filter(~pl.col("chosen"))
    leads = pl.read_csv(tables / "robustness.csv", infer_schema_length=None).filter(modality="none", train_missing=0.0)
    where = {"matched": ("all", "all"), "base": ("has_cxr", "yes")}
    assert where == WHO
    for cohort, (stratum, group) in where.items():
        both = gains.filter(cohort=cohort, stratum=stratum, group=group).join(
            leads.filter(train_cohort=cohort), on=["task", "strategy", "metric"]
        )
        both = both.filter(pl.col("label").is_in(("macro", "icu_mortality")))
        assert both["strategy"].unique().sort().to_list() == ["drfuse", "late_fusion"]
        assert both["ehr"].to_list() == both["reference"].to_list()
        assert both["difference_ehr"].to_list() == pytest.approx(both["lead"].to_list(), abs=2e-6)


def test_tables_and_figures_name_their_source(tables):
    section = answer(tables, 0.95)
    figures, more = reliance(tables)
    assert section.key == "robust"
    assert [figure.name for figure in section.figures][:2] == ["robust_cxr_mortality", "robust_cxr_los"]
    for each in (*section.figures, *section.tables, *figures, *more):
        assert (tables / each.source.removeprefix("tables/")).is_file()
    for table in (*section.tables, *more):
        assert {len(row) for row in table.rows} == {len(table.header)}, table.title
    for figure in (*section.figures, *figures):
        ids = re.findall(r'\bid="([^"]+)"', figure.svg)
        assert all(each.startswith(figure.name) for each in ids)


@pytest.mark.usefixtures("undrawn")
def test_numbers_of_the_curve_table_are_those_of_the_csv(tables):
    table = next(each for each in answer(tables, 0.95).tables if each.title.startswith("ICU mortality: AUROC with"))
    row = next(row for row in table.rows if row[0] == "drfuse")
    csv = pl.read_csv(tables / "robustness.csv", infer_schema_length=None).filter(
        task="mortality", strategy="drfuse", train_cohort="matched", train_missing=0.0, metric="auroc"
    )
    for column, modality, rate in (("Nothing removed", "none", 0.0), ("All images removed", "cxr", 1.0)):
        found = csv.filter(modality=modality, rate=rate).row(0, named=True)
        assert row[table.header.index(column)] == Cell(found["value"], found["value_low"], found["value_high"])


@pytest.mark.usefixtures("undrawn")
def test_training_with_removal_has_a_table_where_it_was_done(tables, own):
    titles = [table.title for table in answer(tables, 0.95).tables]
    assert "ICU mortality: what training with images removed changes (AUROC)" in titles
    table = answer(tables, 0.95).tables[
        titles.index("ICU mortality: what training with images removed changes (AUROC)")
    ]
    csv = pl.read_csv(tables / "robustness.csv", infer_schema_length=None).filter(
        task="mortality", strategy="drfuse", metric="auroc", train_missing=0.5, modality="cxr", rate=1.0
    )
    for how, words in (("mcar", "50% at random"), ("mar", "50% by patient traits")):
        shown = next(row for row in table.rows if row[:2] == ("drfuse", words))
        found = csv.filter(train_mechanism=how, mechanism=how).row(0, named=True)  # removed as it was in training
        assert shown[-1] == Cell(found["gain"], found["gain_low"], found["gain_high"])
    for name in ("robustness", "robustness_summary", "robustness_natural", "robustness_families"):
        path = own / f"{name}.csv"
        files.write_csv(pl.read_csv(path, infer_schema_length=None).filter(train_missing=0.0), path)
    section = answer(own, 0.95)
    assert not [table for table in section.tables if "what training with" in table.title]
    assert any("No model was trained with images removed" in note for note in section.notes)


def test_a_grid_of_one_unimodal_strategy_says_what_is_missing(made, tmp_path):
    folder = write(made, tmp_path, ["resnet"], ["los"])
    section = answer(folder, 0.95)
    assert section.sentence == "The grid holds no fusion strategy, so that there is nothing to lose with the images."
    assert [figure.name for figure in section.figures] == ["robust_overlap"]
    figures, tables = reliance(folder)
    assert figures == ()
    assert [table.title[:12] for table in tables] == ["Findings of "]


@pytest.mark.parametrize(("strategy", "which"), [("drfuse", "all"), ("late_fusion", "none")])
def test_a_grid_of_one_family_compares_nothing(made, tmp_path, strategy, which):
    sentence = answer(write(made, tmp_path, [strategy], ["mortality"]), 0.95).sentence
    who = f"for the fusion strategies, {which} of them built for missing images."
    assert re.search(rf"of patients alone\), AUROC on ICU mortality .*\) {who}", sentence)
    assert "made for complete pairs" not in sentence
    assert sentence.endswith("There is no EHR-only strategy to compare with.")


def test_the_same_bytes_twice(tables):
    assert answer(tables, 0.95) == answer(tables, 0.95)
    assert reliance(tables) == reliance(tables)


def test_a_table_that_is_not_there_or_not_a_table_is_named(own):
    (own / "robustness_summary.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(InputError, match=r"robustness_summary\.csv: cannot be read"):
        answer(own, 0.95)
    (own / "reliance.csv").unlink()
    with pytest.raises(InputError, match=r"reliance\.csv: not found"):
        reliance(own)


def test_a_change_is_claimed_where_its_interval_carries_it():
    assert _change(Cell(0.016, 0.012, 0.044)) == "falls by 0.016 (0.012–0.044)"
    assert _change(Cell(-0.009, -0.016, -0.002)) == "rises by 0.009 (0.002–0.016)"
    assert _change(Cell(0.016, -0.012, 0.044)) == "is not shown to change (−0.016, −0.044 to 0.012)"
    assert _change(Cell(0.0, 0.0, 0.044)) == "is not shown to change (0.000, −0.044 to 0.000)"
    assert _change(Cell(-0.009, None, None)) == "is not shown to change (0.009, too few stays for an interval)"


def test_a_family_is_the_strategies_that_were_there():
    assert _family({"family": "native", "strategies": 7}) == "the 7 strategies built for missing images"
    assert _family({"family": "complete", "strategies": 1}) == "the one strategy made for complete pairs"


@pytest.mark.usefixtures("undrawn")
def test_of_later_tasks_the_families_are_told_in_short(tables):
    first, later = answer(tables, 0.95).sentence.split(". ")[0].split("; ")
    assert " for the one strategy built for missing images and " in first
    assert first.endswith(" for the one strategy made for complete pairs")
    assert " for the former and " in later
    assert later.endswith(" for the latter")


@pytest.mark.usefixtures("undrawn")
def test_the_brief_says_what_a_missing_image_costs_and_who_leads(own):
    set_leads(own, 0.01, "always", None)
    text = answer(own, 0.95).brief
    rows = pl.read_csv(own / "robustness_families.csv").filter(
        task="mortality", train_cohort="matched", train_missing=0.0, modality="cxr", mechanism="mcar", rate=1.0
    )
    native, complete = (rows.filter(family=name, metric="auroc").row(0, named=True) for name in ("native", "complete"))
    each = [_change(Cell(row["loss"], row["loss_low"], row["loss_high"])) for row in (native, complete)]
    assert text.startswith(
        f"{REMOVED} AUROC on ICU mortality {each[0]} for the one strategy built for missing images and {each[1]} for "
        "the one strategy made for complete pairs. "
    )
    assert "1 strategy leads it on ICU mortality" in text
    set_leads(own, -0.01, "always", None)
    assert answer(own, 0.95).brief.endswith("leads the record alone for certain even with every image there.")
