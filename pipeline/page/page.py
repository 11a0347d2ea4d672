"""The page reports/index.html: gathers what the stages left, draws the figures, fills the template. Self-contained.

What is missing of the results is an error; what is missing of the facts (counts, audit) is shown as "not available".
No number on the page stands in this code: all come from files that stages wrote, or from the params.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pipeline import files
from pipeline.disclosure import HIDDEN, known, share
from pipeline.errors import InputError
from pipeline.evaluation.cells import cell_folder
from pipeline.page import figures
from pipeline.page.exposure import badges, banner
from pipeline.page.facts import Block, besides, blocks, rows_read, value, words
from pipeline.page.labels import Names, about, kind_of, sort_value, unique_ids
from pipeline.page.matrix import matrix
from pipeline.page.questions import answers, trials_of_each
from pipeline.presentation.figures import themed
from pipeline.presentation.tables import METRIC_TITLES, TASK_TITLES, phenotype_grid, short_title, wide_tables
from pipeline.presentation.text import HOW, percent, plural
from pipeline.tasks import get_task

FOLDER = Path(__file__).parent
# Stages whose counts the page expects; others that left a file in reports/data follow them.
FACTS = {
    "ingest": "Reading the raw files",
    "cohort": "Cohort",
    "labels": "Labels",
    "series": "Time series",
    "images": "Images",
    "masks": "Removal masks",
}
PACKAGES = ("torch", "torchvision", "numpy", "polars", "duckdb", "scikit-learn", "scipy", "pillow", "matplotlib")
KINDS = {
    "synthetic": (
        "SYNTHETIC",
        "Made from the built-in synthetic hospital: not one number on this page is about patients.",
    ),
    "demo": ("DEMO", "Made from the open MIMIC demo, some hundred patients: too few to compare strategies."),
    "unlisted": ("UNLISTED RELEASE", "Made from a release of MIMIC that this project does not know."),
}
CORE = "vital signs, glucose, Glasgow scores, urine output, heart rhythm"
RECORD = {"core": CORE, "plus": f"{CORE}, laboratory values, ventilation, size"}  # what it holds, by series.tier
HEADLINE = {"mortality": ("auroc", "auprc"), "phenotype": ("auroc", "auprc"), "los": ("accuracy", "kappa")}
TABLES = (
    "tables/results.csv",
    "tables/phenotypes.csv",
    "plots/history.csv",
    "plots/roc.csv",
    "plots/pr.csv",
    "plots/calibration.csv",
    "tables/chosen.csv",
)
COHORTS = ("base", "matched")


def _json(path: Path) -> Any:
    """A JSON file's content, or None where it is absent."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from None


def _table(path: Path) -> pl.DataFrame:
    """A CSV that a stage wrote; a column without any value is of numbers that were not estimable."""
    if not path.is_file():
        raise InputError(f"{path}: not found; run the stage that writes it (dvc repro)")
    try:
        frame = pl.read_csv(path, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    return frame.with_columns(
        pl.col(c).cast(pl.Float64) for c in frame.columns if 0 < len(frame) == frame[c].null_count()
    )


def banners(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """(word, sentence) for every kind of data that is not MIMIC itself; the page carries them across its head."""
    kinds = {source.get("kind") for source in manifest.values() if isinstance(source, dict)}
    unknown = kinds - {"mimic", *KINDS}
    return [KINDS[kind] for kind in KINDS if kind in kinds or (kind == "unlisted" and unknown)]


def plain(params: dict[str, Any]) -> dict[str, Any]:
    """Params as mappings and lists, for YAML."""

    def convert(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: convert(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, dict):
            return {key: convert(each) for key, each in value.items()}
        return [convert(each) for each in value] if isinstance(value, list | tuple) else value

    return {key: convert(value) for key, value in params.items()}


def versions() -> list[tuple[str, str]]:
    """Name and version of Python and the packages that make numbers."""
    return [("Python", platform.python_version()), *((name, importlib.metadata.version(name)) for name in PACKAGES)]


def _draw(
    tasks: tuple[str, ...],
    cohorts: tuple[str, ...],
    table: pl.DataFrame,
    histories: pl.DataFrame,
    curves: list[pl.DataFrame],
) -> dict[str, str]:
    """Every figure but the phenotypes', by name, as SVG; `curves` are ROC, precision and recall, calibration."""
    drawn = {}
    plain_rows = table.filter(pl.col("train_missing") == pl.col("train_missing").min().over("task", "train_cohort"))
    for task in tasks:
        for metric in HEADLINE[task]:
            title = f"{short_title(task)}: {METRIC_TITLES[metric]}"
            label = f"{METRIC_TITLES[metric]}{' (macro mean)' if task == 'phenotype' else ''}"
            name = f"result_{task}_{metric}"
            drawn[name] = figures.forest(plain_rows.filter(task=task), metric, label, name, title)
    if "mortality" in tasks:
        roc, pr, calibration = curves
        for cohort in cohorts:
            rows = plain_rows.filter(task="mortality", train_cohort=cohort, eval_cohort=cohort)
            prevalence = share(rows["positives"][0], rows["n"][0]) if rows.height else None
            of = f"mortality, {cohort} cohort"
            drawn[f"roc_{cohort}"] = figures.roc(roc, cohort, f"roc_{cohort}", f"ROC, {of}")
            name = f"pr_{cohort}"
            drawn[name] = figures.pr(pr, cohort, name, f"Precision and recall, {of}", prevalence)
            name = f"calibration_{cohort}"
            drawn[name] = figures.reliability(calibration, cohort, name, f"Calibration, {of}")
    histories = histories.filter(pl.col("train_missing") == pl.col("train_missing").min().over("task", "cohort"))
    for task in tasks:
        metric = f"Validation {METRIC_TITLES[get_task(task).monitor]}"
        for cohort in cohorts:
            rows, of = histories.filter(task=task, cohort=cohort), f"{short_title(task)}, {cohort} cohort"
            if rows.height:
                name = f"history_{task}_{cohort}"
                drawn[name] = figures.history(rows, metric, name, f"{of}: loss")
                name = f"monitor_{task}_{cohort}"
                drawn[name] = figures.monitor(rows, metric, name, f"{of}: {metric}")
            both = rows.filter(pl.col("ehr").is_not_null() & pl.col("cxr").is_not_null())
            if both.height:
                name = f"branches_{task}_{cohort}"
                drawn[name] = figures.branches(both, metric, name, f"{of}: record less image")
    return drawn


def _chosen_otherwise(histories: pl.DataFrame) -> list[str]:
    """The runs whose epoch the validation metric did not choose, since it was not estimable, and what did."""
    runs = histories.filter(pl.col("best") & (pl.col("monitor") != pl.col("metric_name")))
    by = {"val_loss": "the lowest validation loss", "none": "the last (no validation stay)"}
    found = []
    for row in runs.iter_rows(named=True):
        name = f"{row['strategy']}, {TASK_TITLES[row['task']].split(' (')[0]}, {row['cohort']} cohort"
        share, how = percent(row["train_missing"]), HOW[row["train_mechanism"]]
        removed = f", {share} removed {how}" if row["train_missing"] else ""
        found.append(f"{name}, fold {row['fold']}, seed {row['seed']}{removed}: {by[row['monitor']]}")
    return found


def _draw_phenotypes(phenotypes: pl.DataFrame, chosen: pl.DataFrame) -> dict[str, str]:
    """`chosen` has the columns of chosen.csv: whom validation chose for each phenotype, in each role."""
    drawn = {}
    picked = chosen.filter(pl.col("chosen") & (pl.col("task") == "phenotype"))
    for cohort in COHORTS:
        names, rows = phenotype_grid(phenotypes, cohort, "auroc")
        roles: dict[str, dict[str, str]] = {}
        for label, role, strategy in picked.filter(cohort=cohort).select("label", "role", "strategy").iter_rows():
            roles.setdefault(label, {})[role] = strategy
        values = [
            (row.name, {each: cell.value for each, cell in zip(names, row.cells, strict=True)}, roles.get(row.slug, {}))
            for row in rows
        ]
        if rows:
            name = f"phenotypes_{cohort}"
            drawn[name] = figures.phenotypes(values, name, f"AUROC by phenotype, {cohort} cohort")
    return drawn


def _attrition(counts: Any) -> list[dict[str, Any]]:
    """Steps of cohort.json with what each left and left out, where both may be told; empty where the file is absent."""
    rows = counts["attrition"] if counts else []
    left = [known(row["stays"]) for row in rows]
    found = []
    for i, (row, here) in enumerate(zip(rows, left, strict=True)):
        before = left[i - 1] if i else None
        out = HIDDEN if here is None or before is None else before - here
        found.append({**row, "left_out": out if i else None, "share": share(here, left[0])})
    return found


def _facts(folder: Path) -> list[tuple[str, str, list[Block] | None]]:
    """(title, file beside the page, tables or None) of every stage's counts; splits have a section of their own."""
    others = sorted(path.stem for path in folder.glob("*.json") if path.stem not in (*FACTS, "splits") and _json(path))
    titles = FACTS | {stage: words(stage).capitalize() for stage in others}
    found = {stage: _json(folder / f"{stage}.json") for stage in titles}
    if isinstance(found["cohort"], dict):  # the flow has a section of its own
        found["cohort"] = {key: each for key, each in found["cohort"].items() if key != "attrition"}
    if isinstance(found["ingest"], dict):  # and so have the rows read
        found["ingest"] = {key: rest for key, each in found["ingest"].items() if (rest := besides(each))}
        titles = {stage: title for stage, title in titles.items() if stage != "ingest" or found["ingest"]}
    return [
        (title, f"data/{stage}.json", None if found[stage] is None else blocks(found[stage]))
        for stage, title in titles.items()
    ]


def _quantity(value: int | None) -> str:
    """1234567 -> 1.23 M; a dash where it was not counted."""
    if value is None:
        return "—"
    value = round(value, min(0, 3 - len(str(value))))  # to three digits: 999,999 is a million
    power = min(4, (len(str(value)) - 1) // 3)
    return f"{value / 1000**power:.4g} {' kMGT'[power]}".strip()


def _costs(path: Path, strategies: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """By scale, what each strategy costs, a row a strategy; empty where the file is absent."""
    if not path.is_file():
        return {}
    table = _table(path).filter(pl.col("strategy").is_in(strategies))
    return {key: rows.to_dicts() for (key,), rows in table.group_by("scale", maintain_order=True)}


def linker(repository: str | None) -> Callable[[str, str], Markup]:
    """How files beside the page are linked: in the repository where one is configured, so that a mailed page works."""
    base = f"{repository.rstrip('/')}/blob/main/reports/" if repository else ""

    def beside(file: str, text: str) -> Markup:
        return Markup('<a href="{}{}">{}</a>').format(base, file, text)

    return beside


def _about(reports: Path, manifest: Path, params: dict[str, Any]) -> dict[str, str]:
    """What to cite: title, version, licence, address, and a digest of what the page shows.

    The page is committed with its results and cannot hold its own commit; the digest moves with the results alone.
    """
    shown = [files.sha256(path) for path in (manifest, *(reports / name for name in TABLES))]
    shown.append(yaml.safe_dump(plain(params), sort_keys=True))
    digest = hashlib.sha256("\n".join(shown).encode()).hexdigest()
    project = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    title = str(project["description"]).split("? ")[0] + "?"
    about_it = {"title": title, "version": project["version"], "licence": project["license"]}
    return {**about_it, "results": digest[:12], "repository": (params["report"].repository or "").rstrip("/")}


def _card(path: Path) -> dict[str, Any]:
    """What a strategy is, as its train cell says."""
    card = _json(path)
    if card is None:
        raise InputError(f"{path}: not found; run the stage that writes it (dvc repro)")
    return dict(card)


def build(data: Path, reports: Path, params: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """The page and its figures by name.

    `params` are the blocks to show, as pipeline.params gives them; `grid`, `series`, `evaluation` and `scales` must be
    among them. Raises InputError where a result is missing: the manifest, a table, or a grid's strategy in a table.
    """
    grid, training = params["grid"], params["scales"].training
    manifest_path = data / "manifest.json"
    manifest = _json(manifest_path)
    if manifest is None:
        raise InputError(f"{manifest_path}: not found; run the stage that writes it (dvc repro)")
    table, phenotypes, histories, *curves, chosen = (
        _table(reports / name).filter(pl.col("strategy").is_in(grid.scored)) for name in TABLES
    )
    for task in grid.tasks:
        for strategy in grid.scored:
            if not table.filter(task=task, strategy=strategy).height:
                raise InputError(f"{reports / 'tables' / 'results.csv'}: no rows for {strategy} on {task}")
    cards = [_card(cell_folder(data, strategy) / "card.json") for strategy in grid.scored]
    drawn = _draw(grid.tasks, training.cohorts, table, histories, curves)
    if "phenotype" in grid.tasks:
        drawn |= _draw_phenotypes(phenotypes, chosen)
    questions = answers(reports / "tables", params)
    for figure in (each for answer in questions for each in answer.figures):
        drawn[figure.name] = figure.svg
    audit, splits = _json(reports / "audit.json"), _json(reports / "data" / "splits.json")
    exposure = _json(reports / "data" / "exposure.json")
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = lambda text: Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
    environment.filters["quantity"] = _quantity
    environment.filters["count"] = value
    environment.filters["plural"] = plural
    environment.filters["sort_value"] = sort_value
    names = Names({card["name"]: card["summary"] for card in cards})
    environment.filters["named"] = names.linked
    environment.globals.update(new_names=names.new)
    environment.globals.update(about=about, anchor=unique_ids(), beside=linker(params["report"].repository))
    page = environment.get_template("template.html").render(
        style=Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
        script=Markup((FOLDER / "page.js").read_text(encoding="utf-8")),
        banners=banners(manifest) + banner(exposure),
        badges=badges(exposure, {card["name"]: list(card["modalities"]) for card in cards}),
        answers=questions,
        matrix=matrix(reports / "tables", grid.tasks, tuple(map(str, training.cohorts)), params["verdicts"]),
        kinds={card["name"]: kind_of(card.get("group", ""), list(card["modalities"])) for card in cards},
        summary_of_reading=rows_read(_json(reports / "data" / "ingest.json")),
        about_this=_about(reports, manifest_path, params),
        grid=grid,
        record=RECORD[params["series"].tier],
        training=training,
        trials=trials_of_each(reports / "tables", params),
        draws=params["scales"].evaluation.draws,
        evaluation=params["evaluation"],
        confidence=percent(params["evaluation"].confidence),
        task_titles=TASK_TITLES,
        metric_titles=METRIC_TITLES,
        tables={task: wide_tables(table, task) for task in grid.tasks},
        headline=HEADLINE,
        cards=cards,
        chosen_otherwise=_chosen_otherwise(histories),
        images_alone=[card["name"] for card in cards if list(card["modalities"]) == ["cxr"]],
        phenotypes={cohort: phenotype_grid(phenotypes, cohort, "auroc") for cohort in COHORTS},
        figures={name: Markup(themed(svg)) for name, svg in drawn.items()},
        attrition=_attrition(_json(reports / "data" / "cohort.json")),
        facts=_facts(reports / "data"),
        splits=[block for key in ("folds", "eras") if splits and splits.get(key) for block in blocks(splits[key])],
        test_from_year=splits.get("test_from_year") if splits else None,
        legacy_phenotypes="labels" in params and params["labels"].phenotypes == "legacy_medfuse",
        costs=_costs(reports / "cost.csv", grid.strategies),
        audit=None if audit is None else audit["checks"],
        manifest=[(name, source) for name, source in sorted(manifest.items()) if isinstance(source, dict)],
        manifest_sha256=files.sha256(manifest_path),
        params_yaml=yaml.safe_dump(plain(params), sort_keys=False, allow_unicode=True, width=110),
        versions=versions(),
    )
    return page, drawn


def write(page: str, drawn: dict[str, str], reports: Path) -> None:
    """Writes reports/index.html and reports/figures/*.svg; figures of other grids are removed."""
    folder = reports / "figures"
    for stale in sorted(folder.glob("*.svg")):
        if stale.stem not in drawn:
            stale.unlink()
    for name, svg in drawn.items():
        files.write_text(svg, folder / f"{name}.svg")
    files.write_text(page, reports / "index.html")
