"""The page: complete, and what it says of results."""

import dataclasses
import json
import re

import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.mimic.variables import TIERS, load_variables
from pipeline.page.page import RECORD, _quantity, banners, build, write
from pipeline.params import Grid, Params
from tests.support.inprocess import run, write_params
from tests.support.made_up_probes import add_probes
from tests.support.made_up_runs import STRENGTH, add_trials, fabricate, training
from tests.support.pages import AGGREGATES, SMALL, plant_noise
from tests.support.which import write_tuning


@pytest.mark.usefixtures("undrawn")
def test_the_lead_counts_strategies_and_tasks(page, made, shown):
    assert f"{len(STRENGTH)} strategies and 1 ensemble of them on 3 tasks: " in page
    one = dataclasses.replace(shown["grid"], tasks=("los",), ensembles=())
    assert (
        f"{len(STRENGTH)} strategies on 1 task: " in build(made / "data", made / "reports", {**shown, "grid": one})[0]
    )


@pytest.mark.usefixtures("undrawn")
def test_the_lead_says_what_the_record_holds_at_this_tier(page, own, shown):
    assert f"reads both the record ({RECORD['core']}) and the X-ray" in page
    plus = dataclasses.replace(shown["series"], tier="plus")
    html, _ = build(own / "data", own / "reports", shown | SMALL | {"series": plus})
    assert f"reads both the record ({RECORD['plus']}) and the X-ray" in html


def test_no_tier_is_said_to_hold_laboratory_values_that_has_none():
    assert set(RECORD) == set(TIERS)
    for tier, text in RECORD.items():
        sources = {variable.source for variable in load_variables(tier)}
        assert ("laboratory" in text) == ("labevents" in sources)
        assert ("urine" in text) == ("outputevents" in sources)
        names = {variable.name for variable in load_variables(tier)}
        assert ("ventilation, size" in text) == ({"peep", "height"} <= names)


def test_every_strategy_and_number_of_the_tables_is_there(page, made):
    scores = page[page.index('<section id="results"') :]
    for strategy in STRENGTH:
        assert scores.count(f'<th scope="row">{strategy}</th>') == 3 * 4 + 2  # results; cost, twice
        assert scores.count(f'<th scope="row"><a href="#card-{strategy}">{strategy}</a></th>') == 1  # declarations

    table = pl.read_csv(made / "reports" / "tables" / "results.csv")
    for row in table.filter(pl.col("train_cohort") == pl.col("eval_cohort")).iter_rows(named=True):
        if row["value"] is not None:
            assert f"{round(row['value'], 3) + 0.0:.3f}".replace("-", "−") in page


@pytest.mark.parametrize(
    ("ehr", "cxr", "words"),
    [
        ("synthetic", "synthetic", ["SYNTHETIC"]),
        ("demo", "mimic", ["DEMO"]),
        ("demo", "synthetic", ["SYNTHETIC", "DEMO"]),
        ("mimic", "unlisted", ["UNLISTED RELEASE"]),
        ("mimic", "something new", ["UNLISTED RELEASE"]),
        ("mimic", "mimic", []),
    ],
)
def test_what_the_banners_say(ehr, cxr, words):
    assert [word for word, _ in banners({"mimiciv": {"kind": ehr}, "mimic_cxr": {"kind": cxr}})] == words


@pytest.mark.usefixtures("undrawn")
def test_it_says_across_its_head_what_it_was_made_from(page, own, shown):
    assert page.index("<strong>SYNTHETIC</strong>") < page.index("<header>")
    assert "(SYNTHETIC)</title>" in page
    path = own / "data" / "manifest.json"
    path.write_text(path.read_text().replace('"kind": "synthetic"', '"kind": "mimic"'))
    html, _ = build(own / "data", own / "reports", shown | SMALL)
    assert 'class="banner"' not in html
    assert "SYNTHETIC" not in html


def test_the_cohort_flow_shows_no_number_and_no_bar_where_a_step_is_hidden(page):
    flow = page[page.index('<table class="flow"') :]
    rows = re.findall(r"<tr>(.*?)</tr>", flow[: flow.index("</table>")])[1:]
    cells = [re.findall(r'<td class="number">(.*?)</td>', row) for row in rows]
    assert cells[0] == ["1,000", "540", "–"]
    assert cells[1] == ["550", "480", "450"]
    assert cells[2] == ["hidden", "hidden", "hidden"]
    assert cells[3][0] == "500"
    assert cells[3][2] == "hidden"  # 550 less 500 is of both rules
    assert ["--share" in row for row in rows] == [True, True, False, True]


@pytest.mark.usefixtures("undrawn")
def test_a_phenotype_of_few_has_no_count_and_no_prevalence(own, shown):
    path = own / "reports" / "tables" / "phenotypes.csv"
    table = pl.read_csv(path, infer_schema_length=None)
    few = pl.when(pl.col("phenotype") == "shock").then(pl.lit("<10")).otherwise(pl.col("positives").cast(pl.String))
    table.with_columns(positives=few).write_csv(path)
    html, _ = build(own / "data", own / "reports", shown | {"grid": Grid(("lstm",), ("phenotype",))})
    assert 'data-value="9.5">&lt;10</td><td class="number" data-value="">—</td>' in html


def test_provenance(page, made, shown):
    from hashlib import sha256

    assert sha256((made / "data" / "manifest.json").read_bytes()).hexdigest() in page
    for package in ("torch", "polars", "duckdb", "scikit-learn", "Python"):
        assert f'<th scope="row">{package}</th>' in page
    assert "rotation_degrees: 10.0" in page
    assert "min_stay_hours: 48" in page
    assert "mimiciv synthetic 1" in page


@pytest.mark.usefixtures("undrawn")
def test_the_sentence_on_models_that_see_images_alone(page, own, shown):
    assert "resnet sees images alone. In the base cohort it predicts the training prevalence" in page
    html, _ = build(own / "data", own / "reports", shown | SMALL)
    assert "sees images alone" not in html


def test_strategies_with_a_branch_for_each_modality_show_their_imbalance(page, own, shown):
    """late_fusion is given both; the others are told of one modality alone."""
    assert "Imbalance of the modalities" in page
    small = {"grid": Grid(("lstm", "late_fusion"), ("los",))}
    _, figures = build(own / "data", own / "reports", shown | small)
    assert {"branches_los_base", "branches_los_matched"} <= set(figures)
    assert "late_fusion" in figures["branches_los_base"]
    assert "lstm" not in figures["branches_los_base"]


def test_a_metric_that_no_run_could_estimate_leaves_a_gap(own, shown):
    """A validation part without a positive, in every run: the column is empty, and no column of text."""
    path = own / "reports/plots/history.csv"
    pl.read_csv(path).with_columns(metric=pl.lit(None, pl.Float64)).write_csv(path)
    html, figures = build(own / "data", own / "reports", shown | SMALL)
    assert "history_los_base" in figures
    assert "history_los_base" in html


@pytest.mark.usefixtures("undrawn")
def test_the_temporal_scheme_and_the_legacy_map_are_named(page, own, shown):
    for words in ("The scheme is temporal", "later eras", "legacy_medfuse), not HCUP"):
        assert words not in page
    facts = json.loads((own / "reports/data/splits.json").read_text())
    rows = [{"era": "2011 - 2013", "train": 7654, "test": 0}, {"era": "2014 - 2016", "train": 0, "test": 3210}]
    facts |= {"eras": {"stays_by_era": rows, "stays_without_era": 0}, "test_from_year": 2014}
    (own / "reports/data/splits.json").write_text(json.dumps(facts))
    labels = dataclasses.replace(shown["labels"], phenotypes="legacy_medfuse")
    html, _ = build(own / "data", own / "reports", shown | {"labels": labels})
    assert "Scores on the test stays of the later eras (from 2014 on), fold" in html
    assert "The scheme is temporal: one fold, in which subjects with a stay of an era from 2014 on" in html
    assert "7,654" in html
    assert "3,210" in html
    assert "labels.phenotypes: legacy_medfuse), not HCUP&#39;s" in html or "legacy_medfuse), not HCUP's" in html


def test_every_knob_is_shown(page, shown):
    """Of all strategies there is a list: not what was trained, but what may be."""
    assert set(shown) == {field.name for field in dataclasses.fields(Params)} - {"all_strategies"}
    assert "half_untaught:" in page  # of `ablations`


def test_an_ensemble_has_its_rows_its_card_and_its_tables(page):
    scores = page[page.index('<section id="results"') :]
    assert scores.count('<th scope="row">autoprognosis_m</th>') >= 6  # tasks and cohorts
    assert '<details id="card-autoprognosis_m" data-kind="ensemble">' in page
    assert "autoprognosis_m: ICU mortality, matched cohort" in page
    assert "What has a score and no rank is an ensemble" in page


def test_a_part_of_the_grid(own, shown):
    html, drawn = build(own / "data", own / "reports", shown | SMALL)
    assert "Length of stay" in html
    assert not [
        name for name in drawn if name.startswith(("result_mortality", "history_mortality", "roc", "phenotypes"))
    ]
    write(html, drawn, own / "reports")
    assert sorted(path.stem for path in (own / "reports" / "figures").iterdir()) == sorted(drawn)


def test_verdicts_lead_the_page_and_one_run_is_said(page):
    """The scale `tiny` has one run: nothing is confirmed, in the table that leads, the sentence and the methods."""
    short = page[page.index('id="answers"') : page.index('<section id="when"')]
    assert short.index('<a class="chip open"') < short.index("Whether fusion helps is not testable here")
    assert len(re.findall(r'<a class="chip open" href="#verdict-\w+-\w+">', short)) == 6
    assert short.count(" not testable</a>") == 6
    assert "<figure" not in short
    assert "Here it is one run: luck of training not included." in page
    assert "The scale has one run a strategy, so that nothing is averaged." in page
    assert "leaks looked for were found</summary>" in page
    assert "No model is trained unless none is found." in page
    for claim in ("percentile intervals", "never chosen on test data", "Every fold and interval", "Fusion beats"):
        assert claim not in page


def test_words_of_the_first_screen_are_explained_there(page):
    head = page[page.index("<header>") : page.index("<nav")]
    for word in (
        "Fusion</em> reads both",
        "<b>AUROC</b>: the chance that a stay",
        "base</em> cohort is every eligible stay",
    ):
        assert word in head
    named = set(re.findall(r'<a href="#card-(\w+)">', head[head.index('class="briefs"') :]))
    assert named
    assert all(f"<b>{name}</b>: " in head for name in named)
    assert "<b>not testable</b>: fewer than 50 test stays with the rarer outcome, or a single run." in head


INGEST = {"lab": {"dropped": {"no number": 366}, "kept": 1010, "rows_read": 1376, "noted": {"a bound for a number": 7}}}


@pytest.mark.usefixtures("undrawn")
def test_rows_read_stand_in_one_table(own, shown):
    (own / "reports" / "data" / "ingest.json").write_text(json.dumps(INGEST))
    html, _ = build(own / "data", own / "reports", shown | SMALL)
    facts = html[html.index('<section id="facts"') : html.index('<section id="splits"')]
    assert facts.count("1,376") == 1
    assert "<summary>Reading the raw files</summary>" in facts
    assert "a bound for a number" in facts
    (own / "reports" / "data" / "ingest.json").write_text(json.dumps({"lab": INGEST["lab"] | {"noted": {}}}))
    html, _ = build(own / "data", own / "reports", shown | SMALL)
    assert html.count("Reading the raw files") == 0


def test_the_first_screen_answers_each_of_the_four_questions_in_at_most_two_sentences(page):
    briefs = dict(re.findall(r'<article aria-labelledby="short-(\w+)">.*?<p>(.*?)</p>', page, re.DOTALL))
    assert list(briefs) == ["when", "which", "robust", "fair"]
    for text in briefs.values():
        assert 1 <= len(re.findall(r"\.(?= [A-Z]|$)", re.sub(r"<[^>]*>", "", text))) <= 2, text
        assert not re.search(r"(lose|gain) −", text)


def test_from_a_verdict_to_its_row_to_its_labels_to_the_figure(page):
    """Chip, row, rows of labels, and the scores of all strategies: each leads to the next."""
    assert '<a class="chip open" href="#verdict-phenotype-base">' in page
    row = re.search(r'<tr id="verdict-phenotype-base".*?</tr>', page, re.DOTALL)[0]
    assert 'href="#row-phenotype-base-macro"' in row
    assert 'href="#figure-when_phenotypes"' in row
    assert '<tr id="row-phenotype-base-macro"' in page
    label = re.search(r'<tr id="row-phenotype-base-shock".*?</tr>', page, re.DOTALL)[0]
    assert 'href="#auroc-base-shock"' in label
    assert '<tr id="auroc-base-shock">' in page
    every = page[page.index('id="by-strategy"') : page.index('class="briefs"')]
    assert every.count('href="#every-late_fusion"') == 6
    assert 'href="#card-late_fusion"' in re.search(r'<tr[^>]*id="every-late_fusion".*?</tr>', page, re.DOTALL)[0]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("failed", "told"), [(0, "0 of"), (1, "1 of"), (2, "2 of")])
def test_leaks_are_told_of_none_one_and_two(own, shown, failed, told):
    path = own / "reports" / "audit.json"
    audit = json.loads(path.read_text())
    for check in audit["checks"][:failed]:
        check["passed"] = False
    path.write_text(json.dumps(audit))
    html, _ = build(own / "data", own / "reports", shown | SMALL)
    was = "was" if failed == 1 else "were"
    assert f"<summary>{told} {len(audit['checks'])} leaks looked for {was} found</summary>" in html
    assert " open>" in html[html.index('<section id="audit"') : html.index(" looked for ")] or not failed
    assert html.count('<td class="failed">✗ found</td>') == failed


@pytest.mark.usefixtures("undrawn")
def test_what_it_tells_of_tuning(page, own, shown):
    """In the head of the scores and in question 2, which both follow what the strategies of the grid had."""
    defaults = "chosen by hand and tuned for no strategy: the differences are not a ranking."
    chosen = "Hyper-parameters were chosen on dev alone, in 2 trials of every strategy on every task"
    assert defaults in page
    assert "Expected best score on dev" not in page
    assert re.search(r"^tuning:\n  trials: 0$", page, re.MULTILINE)
    add_trials(own / "data", {("lstm", "los"): [0.3, 0.4], ("resnet", "los"): [0.1]})
    for grid, told in ((("lstm",), chosen), (("lstm", "resnet"), "chosen in unequal numbers of trials")):
        grid = Grid(grid, ("los",))
        write_tuning(own / "data", own / "reports/tables", grid)
        html, drawn = build(own / "data", own / "reports", shown | {"grid": grid})
        assert " ".join(told.split()) in html
        assert defaults not in html
        assert ("tuning_los" in drawn) == ("Expected best score on dev" in html) == (told == chosen)
        assert ("Settings were chosen on dev alone" in html) == (told == chosen)


def test_one_task_and_one_cohort_from_evaluate_to_page(tmp_path, shown):
    """There is nothing to fuse or to compare, and the answers say so."""
    scale = dataclasses.replace(training((0,)), cohorts=("matched",))
    fabricate(tmp_path, scale, ["lstm"], ["los"], stays=120)
    add_probes(tmp_path, {"lstm": (["ehr"], "complete")}, ["los"])
    plant_noise(tmp_path / "data")
    changes = {"grid.strategies": ["lstm"], "grid.tasks": ["los"], "scales.tiny.training.cohorts": ["matched"]}
    write_params(tmp_path, 150, 1, {**changes, "evaluation.confidence": 0.975})
    run(tmp_path, *AGGREGATES)
    scales = dataclasses.replace(shown["scales"], training=scale)
    html, drawn = build(tmp_path / "data", tmp_path / "reports", shown | SMALL | {"scales": scales})
    assert {"result_los_accuracy", "result_los_kappa", "history_los_matched"} <= set(drawn)
    assert not [name for name in drawn if "mortality" in name or "phenotype" in name or "branches" in name]
    assert 'id="phenotypes"' not in html
    assert "97.5% interval" in (tmp_path / "reports" / "tables" / "results.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_the_page_names_the_runs_whose_metric_chose_no_epoch(own, shown, page):
    assert "In every run that metric was estimable and chose the epoch." in page
    path = own / "reports" / "plots" / "history.csv"
    of_run = (pl.col("strategy") == "lstm") & (pl.col("task") == "mortality") & (pl.col("cohort") == "base")
    chosen = pl.when(of_run & (pl.col("fold") == 0) & (pl.col("seed") == 0)).then(pl.lit("val_loss"))
    pl.read_csv(path).with_columns(chosen.otherwise(pl.col("monitor")).alias("monitor")).write_csv(path)
    html, _ = build(own / "data", own / "reports", shown | {"grid": Grid(("lstm",), ("mortality",))})
    assert "In 1 run the metric was not estimable" in html
    assert "<li>lstm, ICU mortality, base cohort, fold 0, seed 0: the lowest validation loss</li>" in html


@pytest.mark.usefixtures("undrawn")
def test_code_in_cards_and_names_of_checks_are_written_for_people(own, shown):
    path = own / "data" / "runs" / "lstm" / "card.json"
    card = json.loads(path.read_text())
    card["entries"]["Changed"] = "also `observed` where x < 1"
    card["interaction"] = "additive <b>"
    path.write_text(json.dumps(card))
    html, _ = build(own / "data", own / "reports", shown | SMALL)
    assert "<dd>also <code>observed</code> where x &lt; 1</dd>" in html
    assert '<tr data-kind="EHR only"><th scope="row"><a href="#card-lstm">lstm</a></th><td>ehr</td>' in html
    assert "<td>–</td><td>additive &lt;b&gt;</td></tr>" in html
    for check in json.loads((own / "reports" / "audit.json").read_text())["checks"]:
        assert f'<th scope="row">{check["name"].replace("_", " ")}</th><td class="passed">✓ not found</td>' in html


@pytest.mark.parametrize(
    "name",
    ["tables/results.csv", "tables/phenotypes.csv", "plots/roc.csv", "plots/calibration.csv", "plots/history.csv"],
)
def test_missing_results_are_an_error(own, shown, name):
    (own / "reports" / name).unlink()
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        build(own / "data", own / "reports", shown)


def test_a_strategy_without_results_and_a_missing_manifest_are_errors(own, shown):
    with pytest.raises(InputError, match="no rows for drfuse on mortality"):
        build(own / "data", own / "reports", shown | {"grid": Grid(("lstm", "drfuse"), ("mortality",))})
    (own / "data" / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"manifest\.json: not found"):
        build(own / "data", own / "reports", shown)
    (own / "data" / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"manifest\.json: not JSON"):
        build(own / "data", own / "reports", shown)


@pytest.mark.usefixtures("undrawn")
def test_cost_of_each_strategy_and_a_dash_for_one_that_has_no_network(page, own, shown):
    section = page[page.index('<section id="cost"') : page.index('<section id="training"')]
    (row,) = set(re.findall(r'<tr[^>]*><th scope="row">transformer</th>(.*?)</tr>', section))
    assert re.findall(r'data-value="(\d+)">([^<]+)<', row) == [
        ("1234567", "1.23 M"),
        ("8310329344", "8.31 G"),
        ("81236480", "81.2 M"),
    ]
    (row,) = set(re.findall(r'<tr[^>]*><th scope="row">lstm</th>(.*?)</tr>', section))
    assert row.count('data-value="">—</td>') == 3
    (own / "reports" / "cost.csv").unlink()
    html, _ = build(own / "data", own / "reports", shown | SMALL)
    assert "Not available" in html[html.index('<section id="cost"') : html.index('<section id="training"')]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (7, "7"), (999, "999"), (1000, "1 k"), (999_499, "999 k"), (999_500, "1 M"), (8_310_329_344, "8.31 G")],
)
def test_quantities_to_three_digits(value, text):
    assert _quantity(value) == text


@pytest.mark.usefixtures("undrawn")
def test_what_to_cite_moves_with_the_results_alone(page, own, shown):
    def digest(html):
        (found,) = set(re.findall(r"results <code>(\w{12})</code>", html))
        return found

    assert digest(page)
    assert "version 0.1.0." in page
    assert "<dd>MIT for the code" in page
    before = digest(build(own / "data", own / "reports", shown | SMALL)[0])
    assert digest(build(own / "data", own / "reports", shown | SMALL)[0]) == before
    table = own / "reports" / "tables" / "results.csv"
    table.write_text(table.read_text() + "\n")
    assert digest(build(own / "data", own / "reports", shown | SMALL)[0]) != before
