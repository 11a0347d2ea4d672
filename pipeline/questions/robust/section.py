"""Question 3 on the page: what missing images and records cost, from the tables of the stage `robustness`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from pipeline.evaluation.reading import read_table
from pipeline.evaluation.scores import headline
from pipeline.presentation.answers import Answer, AnswerFigure, AnswerTable, Value
from pipeline.presentation.tables import HEADLINE_ORDER, METRIC_TITLES, Cell, preferred, short_title, title_inside
from pipeline.presentation.text import HOW, joined, percent, plural, verb
from pipeline.questions.robust import figures
from pipeline.questions.robust.overlap import OVERLAP
from pipeline.questions.robust.robustness import CURVES, FAMILIES, NATURAL, SUMMARY
from pipeline.questions.robust.text import at, span, stops
from pipeline.tasks import get_task

NOTHING_TO_LOSE = "The grid holds no fusion strategy, so that there is nothing to lose with the images."
FAMILY_TITLES = {
    "native": "built for missing images",
    "complete": "made for complete pairs",
}
REMOVED = "With every image removed at inference, on average (exploratory, of patients alone),"
QUESTION = "How robust are they when a modality is missing?"
STAGE = "robustness"
SCHEMAS = {
    "robustness": CURVES,
    "robustness_summary": SUMMARY,
    "robustness_natural": NATURAL,
    "robustness_families": FAMILIES,
    "overlap": OVERLAP,
}
GAIN: dict[str, Any] = {  # what is read of gain.csv, whose intervals hold the luck of training; counts may be words
    **dict.fromkeys(("task", "cohort", "label", "stratum", "group", "metric", "strategy", "n", "positives"), pl.String),
    "chosen": pl.Boolean,
    "low_ehr": pl.Float64,
}
WHO = {"matched": ("all", "all"), "base": ("has_cxr", "yes")}  # (stratum, group) of gain.csv: those with an image
GROUP_TITLES = {
    "base": "All stays",
    "matched": "With an image",
    "not_taken": "No image, could have been taken",
    "not_collectable": "No image, none could be there",
}


def cell(row: dict[str, Any] | None, name: str) -> Cell | None:
    """The number called `name` of a row, with its interval; None where there is no row."""
    return None if row is None else Cell(row[name], row[f"{name}_low"], row[f"{name}_high"])


def answer(tables: Path, confidence: float) -> Answer:
    """The section; `tables` is the folder of the stage's tables, and of gain.csv.

    Raises InputError where a table is absent or cannot be read.
    """
    read = {name: read_table(tables / f"{name}.csv", schema) for name, schema in SCHEMAS.items()}
    shown = {name: preferred(table) for name, table in read.items() if name != "overlap"}
    shown["gain"] = read_table(tables / "gain.csv", GAIN)
    tasks = [task for task in HEADLINE_ORDER if task in shown["robustness"]["task"].to_list()]
    return Answer(
        key="robust",
        question=QUESTION,
        sentence=_sentence(shown, tasks),
        notes=_notes(read, shown, confidence),
        figures=tuple(_figures(shown, read["overlap"], tasks)),
        tables=tuple(_tables(read, shown, tasks)),
        brief=_brief(shown, tasks),
    )


def _first_metric(table: pl.DataFrame, task: str) -> pl.DataFrame:
    rows = table.filter(task=task)
    return rows.filter(metric=rows["metric"][0]) if rows.height else rows


def _families(shown: dict[str, pl.DataFrame], task: str) -> dict[str, dict[str, Any]]:
    """The rows of native, complete and their difference with every image removed."""
    rows = _first_metric(shown["robustness_families"], task).filter(modality="cxr", mechanism="mcar", rate=1.0)
    return {row["family"]: row for row in rows.iter_rows(named=True)}


def _family(row: dict[str, Any]) -> str:
    """the 7 strategies built for missing images: these, and no other ones, since none was drawn."""
    count = row["strategies"]
    return f"the {'one strategy' if count == 1 else plural(count, 'strategy')} {FAMILY_TITLES[row['family']]}"


def _sentence(shown: dict[str, pl.DataFrame], tasks: list[str]) -> str:
    """What all images are worth to both families, whether they differ, and until when fusion pays."""
    families = {task: rows for task in tasks if (rows := _families(shown, task))}
    if not families:
        return NOTHING_TO_LOSE
    first = next(iter(families.values()))
    there = [name for name in FAMILY_TITLES if first[name]["strategies"]]
    which = "all" if there == ["native"] else "none"
    alone = f"the fusion strategies, {which} of them built for missing images"
    names, told, unknown = [alone] if len(there) == 1 else [_family(first[name]) for name in there], [], []
    for task, rows in families.items():
        if any(rows[name]["loss"] is None for name in there):
            unknown.append(title_inside(task))
        else:
            told.append(_moves(task, rows, dict(zip(there, names, strict=True))))
            names = ["them"] if len(there) == 1 else ["the former", "the latter"]
    parts = [f"{REMOVED} {'; '.join(told)}."] if told else []
    if told and len(there) > 1:
        known = [task for task in families if title_inside(task) not in unknown]
        parts.append(_verdict(shown, {task: _sign(families[task]["difference"]) for task in known}))
    if unknown:
        parts.append(f"What is lost with the images is not estimable for {joined(unknown)}.")
    return " ".join([*parts, _pays(shown, list(families))])


def _brief(shown: dict[str, pl.DataFrame], tasks: list[str]) -> str:
    """What a missing image costs on the first task on which it is estimable, and whether fusion leads until then."""
    families = {task: rows for task in tasks if (rows := _families(shown, task))}
    if not families:
        return NOTHING_TO_LOSE
    for task, rows in families.items():
        there = [name for name in FAMILY_TITLES if rows[name]["strategies"] and rows[name]["loss"] is not None]
        if there:
            first = f"{REMOVED} {_moves(task, rows, {name: _family(rows[name]) for name in there})}."
            break
    else:
        first = "What is lost with the images is not estimable."
    return f"{first} {_leads(shown, list(families))}"


def _leads(shown: dict[str, pl.DataFrame], tasks: list[str]) -> str:
    """On which tasks a fusion strategy leads the record alone with every image there."""
    leading = [task for task in tasks if _sure(shown, task).height]
    if not leading:
        return "No fusion strategy leads the record alone for certain even with every image there."
    told = [
        f"{plural(count, 'strategy')} {verb(count, 'leads', 'lead')} it on {title_inside(task)}"
        for task in leading
        for count in (_sure(shown, task).height,)
    ]
    alone = next((words for task in leading if (words := _alone(shown, task))), "")
    return f"Held against the record alone one at a time, with every image there, {joined(told)} (exploratory{alone})."


def _verdict(shown: dict[str, pl.DataFrame], signs: dict[str, str | None]) -> str:
    """Whether strategies built for missing images fare better than the others, task by task."""
    verdicts = [
        f"the former fare {what} on {title_inside(task)} (exploratory){_lower_before(shown, task, what)}"
        for task, what in signs.items()
        if what is not None
    ]
    return f"Of the two, {'; '.join(verdicts)}." if verdicts else "Which of the two fare better is too small to tell."


def _moves(task: str, rows: dict[str, dict[str, Any]], who: dict[str, str]) -> str:
    """AUROC on phenotypes falls by 0.003 (0.001–0.005) for WHO and is not shown to change (…) for WHO."""
    metric = METRIC_TITLES[rows["native"]["metric"]]
    metric = metric if metric.isupper() else metric.lower()
    each = [f"{_change(_loss(rows[family]))} for {name}" for family, name in who.items()]
    return f"{metric} on {title_inside(task)} {joined(each)}"


def _loss(row: dict[str, Any]) -> Cell:
    return Cell(*(row[each] for each in ("loss", "loss_low", "loss_high")))


def _change(loss: Cell) -> str:
    """falls by 0.016 (0.012–0.044); rises by 0.009 (0.002–0.016); where its interval denies either, no claim."""
    value, low, high = loss
    if value is None:
        return "is not estimable"
    gain = Cell(-value, *(None if each is None else -each for each in (high, low)))
    if low is None or high is None or low <= 0 <= high:
        return f"is not shown to change ({gain.estimate}, {gain.interval or 'too few stays for an interval'})"
    return f"falls by {loss.text}" if value > 0 else f"rises by {gain.text}"


def _sign(difference: dict[str, Any]) -> str | None:
    """better or worse, where the interval says so."""
    low, high = difference["loss_low"], difference["loss_high"]
    if low is None or high is None or low <= 0 <= high:
        return None
    return "better" if high < 0 else "worse"


def _lower_before(shown: dict[str, pl.DataFrame], task: str, what: str) -> str:
    """Who fares better may have had less to lose: what the families differ by with every image there, if it is sure."""
    rows = _first_metric(shown["robustness_families"], task).filter(modality="none", family="difference")
    low, high = (rows[name][0] for name in ("value_low", "value_high"))
    if what != "better" or high is None or high >= 0:
        return ""
    less = Cell(-rows["value"][0], -high, -low)
    return f", and had less to lose: with every image there they score {less.text} lower"


def _pays(shown: dict[str, pl.DataFrame], tasks: list[str]) -> str:
    """Which fusion strategies lead the EHR-only reference for certain, and when these stop paying."""
    found, compared = [], False
    for task in tasks:
        fusion, sure = _fusion(shown, task), _sure(shown, task)
        compared = compared or fusion["reference"].null_count() < fusion.height
        if sure.height:
            when = joined([_when(row) for row in sure.iter_rows(named=True)])
            who = (
                "the one fusion strategy"
                if fusion.height == 1
                else f"{sure.height} of {fusion.height} fusion strategies"
            )
            against = f"{verb(sure.height, 'leads', 'lead')} the record alone ({sure['reference'][0]})"
            one = f" (exploratory, one at a time{_alone(shown, task)})"
            found.append(f"On {title_inside(task)} {who} {against} with every image there{one}: {when}.")
    if found:
        return " ".join(found)
    if not compared:
        return "There is no EHR-only strategy to compare with."
    return (
        "No fusion strategy leads the record alone for certain even with every image there, so that the share of "
        "images at which fusion stops paying is too small to tell."
    )


def _fusion(shown: dict[str, pl.DataFrame], task: str) -> pl.DataFrame:
    """The summaries of fusion strategies as images go at random."""
    rows = _first_metric(shown["robustness_summary"], task)
    return rows.filter(pl.col("missing").is_not_null(), modality="cxr", mechanism="mcar")


def _sure(shown: dict[str, pl.DataFrame], task: str) -> pl.DataFrame:
    """Of these, the ones whose lead over the record alone, with every image there, is above 0 for certain.

    The tables of the stage know patients alone, gain.csv the luck of training, too: it denies what it does not confirm.
    """
    curves = _first_metric(shown["robustness"], task).filter(modality="none")
    leading = curves.filter(pl.col("lead_low") > 0)["strategy"]
    lucky = _with_luck(shown, task)
    if lucky.height:
        leading = lucky.filter(pl.col("strategy").is_in(leading.to_list()), pl.col("low_ehr") > 0)["strategy"]
    return _fusion(shown, task).filter(pl.col("strategy").is_in(leading.to_list()))


def _with_luck(shown: dict[str, pl.DataFrame], task: str) -> pl.DataFrame:
    """The rows of gain.csv on the same test stays and metric, a row a strategy; none where it compares nobody."""
    curves = _first_metric(shown["robustness"], task)
    cohort, metric = curves["train_cohort"][0], curves["metric"][0]
    about = dict(zip(("stratum", "group"), WHO[cohort], strict=True)) | {"cohort": cohort, "metric": metric}
    return shown["gain"].filter(~pl.col("chosen"), task=task, label=headline(get_task(task)), **about)


def _alone(shown: dict[str, pl.DataFrame], task: str) -> str:
    """Words where the luck of training is in no interval: of one run, or where gain.csv compares nobody."""
    one = _first_metric(shown["robustness"], task)["runs"].max() == 1
    return ", of patients alone" if one or not _with_luck(shown, task).height else ""


def _when(row: dict[str, Any]) -> str:
    """Until which share removed a strategy pays, with the interval of that share."""
    name = row["strategy"]
    if row["pays"] is None:
        return f"{name} pays until a share that is not estimable"
    if row["pays"] == "until":
        return f"{name} pays until {at(row['stops'])} ({span(row)}) of images are removed"
    if row["stops_low"] is None:
        return f"{name} pays even with every image removed"
    where = f"{at(row['stops_low'])} of images removed, or nowhere" if row["stops_high"] is None else span(row)
    return f"{name}'s lead is not seen to end (its end may lie at {where})"


def _notes(read: dict[str, pl.DataFrame], shown: dict[str, pl.DataFrame], confidence: float) -> tuple[str, ...]:
    curves = shown["robustness"]
    cohort = curves["train_cohort"][0] if curves.height else "matched"
    notes = [
        f"Models trained on the {cohort} cohort, and images or records removed from the test stays with an image "
        f"({plural(curves['n'][0] if curves.height else 0, 'stay')}); intervals are {percent(confidence)}, paired over "
        "subjects. What is removed is the same for every strategy, and what is removed at a rate is so at every higher "
        "one.",
        "That strategies built for missing images fare better than the others is an exploratory comparison of group "
        "means: the groups differ in more than this.",
    ]
    trained = sorted(set(read["robustness"]["train_missing"].to_list()) - {0.0})
    if not trained:
        notes.append("No model was trained with images removed at this scale (scales.X.training.train_missing).")
    return tuple(notes)


def _figures(shown: dict[str, pl.DataFrame], overlap: pl.DataFrame, tasks: list[str]) -> list[AnswerFigure]:
    found = []
    for modality, what in (("cxr", "images"), ("ehr", "records")):
        for task in tasks:
            rows = _first_metric(shown["robustness"], task).filter(
                pl.col("modality").is_in(("none", modality)), pl.col("mechanism").is_in(("none", "mcar"))
            )
            summary = shown["robustness_summary"].filter(task=task)
            fusion = summary.filter(pl.col("missing").is_not_null())["strategy"].unique(maintain_order=True).to_list()
            if not fusion or rows["value"].null_count() == rows.height:
                continue
            families = _first_metric(shown["robustness_families"], task).filter(
                pl.col("modality").is_in(("none", modality)), pl.col("mechanism").is_in(("none", "mcar"))
            )
            known = summary["reference"].drop_nulls()
            reference = (known[0], rows.filter(strategy=known[0])) if len(known) else None
            name = f"robust_{modality}_{task}"
            metric = METRIC_TITLES[rows["metric"][0]]
            title = f"{short_title(task)}: {metric} as {what} go"
            svg = figures.degradation(
                [rows.filter(strategy=strategy) for strategy in fusion],
                {family: families.filter(family=family) for family in figures.FAMILIES},
                reference,
                what,
                metric,
                name,
                title,
            )
            caption = "Removed at random from the test stays with an image; bands are intervals of the group means."
            found.append(AnswerFigure(name, svg, caption, "tables/robustness_families.csv"))
    if overlap.height:
        fold = overlap["fold"][0]
        svg = figures.overlap(overlap.filter(fold=fold), "robust_overlap", "Who could have had an image")
        caption = (
            f"Stays where an image could have been there, by the propensity model of fold {fold}, which also decides "
            "who loses an image first where removal depends on patient traits. Counts below ten are not shown."
        )
        found.append(AnswerFigure("robust_overlap", svg, caption, "tables/overlap.csv"))
    return found


def _tables(read: dict[str, pl.DataFrame], shown: dict[str, pl.DataFrame], tasks: list[str]) -> list[AnswerTable]:
    found = []
    for task in tasks:
        curves, summary = (_first_metric(shown[name], task) for name in ("robustness", "robustness_summary"))
        found.append(_curve_table(task, curves, summary))
        found += _trained_table(task, _first_metric(read["robustness"], task))
        for cohort in read["robustness_natural"]["train_cohort"].unique().sort().to_list():
            rows = _first_metric(read["robustness_natural"], task).filter(train_cohort=cohort, train_missing=0.0)
            found.append(_natural_table(task, cohort, rows))
    return found


def _curve_table(task: str, curves: pl.DataFrame, summary: pl.DataFrame) -> AnswerTable:
    metric = METRIC_TITLES[curves["metric"][0]]
    hours = curves.filter(mechanism="last_hours")["rate"].unique().sort().to_list()
    header = [
        "Strategy",
        "Missing images",
        "Nothing removed",
        "All images removed",
        "Lost with the images",
        "Mean over rates, at random",
        "Mean over rates, by traits",
        "Stops paying at",
        "Lost with the records",
        *(f"Change, last {48 * rate:g} h absent" for rate in hours),
    ]
    body: list[tuple[Value, ...]] = []
    for strategy in curves["strategy"].unique(maintain_order=True):
        own = {
            (row["modality"], row["mechanism"], row["rate"]): row for row in curves.filter(strategy=strategy).to_dicts()
        }
        short = {(row["modality"], row["mechanism"]): row for row in summary.filter(strategy=strategy).to_dicts()}
        whole, images = own[("none", "none", 0.0)], short.get(("cxr", "mcar"), next(iter(short.values())))
        body.append(
            (
                strategy,
                images["missing"] or "–",
                cell(whole, "value"),
                cell(own.get(("cxr", images["mechanism"], 1.0)), "value"),
                cell(images, "loss"),
                cell(short.get(("cxr", "mcar")), "area"),
                cell(short.get(("cxr", "mar")), "area"),
                stops(images) or "–",
                cell(short.get(("ehr", "mcar")), "loss"),
                *(cell(own.get(("ehr", "last_hours", rate)), "change") for rate in hours),
            )
        )
    return AnswerTable(
        title=f"{short_title(task)}: {metric} with images or records removed",
        note="Stops paying: the share of images at which the lead over the EHR alone is gone, by interpolation.",
        header=tuple(header),
        rows=tuple(body),
        source="tables/robustness_summary.csv",
        stage=STAGE,
    )


def _trained_table(task: str, curves: pl.DataFrame) -> list[AnswerTable]:
    """What training with images removed changes; nothing where no model was. Removed at inference as in training."""
    rows = curves.filter(
        pl.col("train_missing") > 0,
        (pl.col("modality") == "none")
        | ((pl.col("modality") == "cxr") & (pl.col("mechanism") == pl.col("train_mechanism"))),
    )
    if not rows.height:
        return []
    rates = rows["rate"].unique().sort().to_list()
    kinds = rows.select("train_missing", "train_mechanism").unique().sort("train_mechanism", "train_missing").to_dicts()
    body: list[tuple[Value, ...]] = []
    for strategy in rows["strategy"].unique(maintain_order=True):
        for kind in kinds:
            own = {row["rate"]: row for row in rows.filter(strategy=strategy, **kind).to_dicts()}
            removed = f"{percent(kind['train_missing'])} {HOW[kind['train_mechanism']]}"
            body.append((strategy, removed, *(cell(own.get(rate), "gain") for rate in rates)))
    metric = METRIC_TITLES[rows["metric"][0]]
    return [
        AnswerTable(
            title=f"{short_title(task)}: what training with images removed changes ({metric})",
            note="Difference to the same strategy trained with every image, by the share removed at inference, which "
            "is removed as it was in training.",
            header=("Strategy", "Removed in training", *(f"{percent(rate)} removed" for rate in rates)),
            rows=tuple(body),
            source="tables/robustness.csv",
            stage=STAGE,
        )
    ]


def _natural_table(task: str, cohort: str, rows: pl.DataFrame) -> AnswerTable:
    counts = {row["group"]: row["n"] for row in rows.iter_rows(named=True)}
    body: list[tuple[Value, ...]] = []
    for strategy in rows["strategy"].unique(maintain_order=True):
        own = {row["group"]: row for row in rows.filter(strategy=strategy).to_dicts()}
        body.append((strategy, *(cell(own[group], "value") for group in GROUP_TITLES)))
    metric = METRIC_TITLES[rows["metric"][0]] if rows.height else ""
    return AnswerTable(
        title=f"{short_title(task)}: {metric} where images are missing by nature, trained on {cohort}",
        note="Test stays as they are. Groups differ in more than the image: in era, admission and mix of diagnoses.",
        header=("Strategy", *(f"{title} (n = {counts.get(group, 0)})" for group, title in GROUP_TITLES.items())),
        rows=tuple(body),
        source="tables/robustness_natural.csv",
        stage=STAGE,
    )
