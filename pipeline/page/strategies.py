"""`python -m pipeline.page.strategies` writes docs/strategies.md: all cards, and what docs/study found of each.

The cards are at the head of the strategies' files, on which training depends. What was found stands in the study's
tables alone, and is read from them, so that it cannot differ from them and a new study trains nothing again. What moves
a strategy before it is trained is read from docs/sensitivity.csv, which tests/benchmarks/sensitivity.py writes; what it
makes of images and of their causes, from docs/image-use.csv, which tests/benchmarks/pictured.py writes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

from pipeline import files
from pipeline.evaluation.paired import ALL
from pipeline.evaluation.reading import read_table
from pipeline.evaluation.scores import MACRO
from pipeline.modelling.cards import ENTRIES, Card, read_card
from pipeline.modelling.registry import names
from pipeline.presentation.text import markdown_table, with_interval
from pipeline.questions.which.own import FILES

DOCUMENT, STUDY, SENSITIVITY = Path("docs/strategies.md"), Path("docs/study"), Path("docs/sensitivity.csv")
IMAGE_USE = Path("docs/image-use.csv")
WAYS = {"end_to_end": "end to end", "causes": "causes given", "before": "end to end by the code before"}
USES = {
    "ehr_only": "record-only",
    "cxr_only": "image-only",
    "synergistic": "synergistic",
    "cost": "others' images cost",
}
NO_SYNERGY = "Even of the causes it finds no synergy, {how}: that is the method's, and not the CNN's."
COMMAND = "python -m pipeline.page.strategies"
BOUNDS, LOSS = ("difference", "low", "high"), ("loss", "loss_low", "loss_high")
GROUPS = {"unimodal": "One modality", "control": "Controls that see no pixel", "fusion": "Fusion"}
HEAD = f"""# The strategies

Written by `{COMMAND}` from the cards at the head of the files in `pipeline/strategies/` (edit those) and the tables of
[the study](study/README.md).

*Sees*: `ehr` the record, `cxr` the pixels, `presence` whether there is an image, `metadata` its hour, view and number.
*Missing*: `native` has a mechanism of its own for absent images, `complete` is a method for complete pairs that was
given one; either way the card says which. *Interaction*: `additive` if what a record adds to the answer is the same
whatever the image, `joint` if not; `check_strategy` holds each to what it declares, and to the rest of the contract
(CONTRIBUTING.md). Hyper-parameters stand under `strategies` in params.yaml.

What a card says of images is said of pixels. Where a frozen encoder's embeddings are seen instead (`training.image`,
[encoders.md](encoders.md#running)), every stage of the CNN is that encoder's last map: `mmtm` and `daft`, which act on
earlier stages, act on it; `umse` with `image: patches` and `healnet` with `tokens: raw` are refused.

*Found*: in the study (synthetic hospital, phenotypes, untuned, one fold, one seed), by the code of then; most have
changed since (CHANGELOG.md). Differences are of AUROC, to the single modality that validation chose, with 95 %
intervals; *synergistic* is of the phenotypes that only both modalities together tell. Where the difference is not above
0, the strategy does not show there what its paper claims.

*Images* (`python -m tests.benchmarks.pictured`, [image-use.csv](image-use.csv)): AUROC on the test stays of a synthetic
hospital of the scale `study` (32 px, phenotypes, matched cohort, three folds, a seed each), of the phenotypes that the
record alone tells, those that the image alone tells, those that only both tell, and what of the last two is lost with
other patients' images, with 95 % intervals of patients. *End to end* is with the CNN; *causes given* is with a linear
map of the planted causes that the image shows, in the CNN's place: who finds nothing synergistic there (0.5) does so
for another reason than the CNN. Settings are those of params.yaml, or, *tuned*, the best on dev of so many trials.
*By the code before* is commit 3a2ff8d, before strategies were mended to learn from images.
"""
BEFORE = """## Before training

Written by `python -m tests.benchmarks.sensitivity`. How far the logits of the untrained strategy move (mean absolute
change) with another patient's pixels or another patient's record, and the norm of the gradient of all losses at the
CNN's first filters and at the record's embedding: the scale `study`, phenotypes, a made-up batch of 32, the mean of
three initialisations. Where the image moves far less than the record, the record is learned first, and alone.
"""
MOVES = {
    "logit_cxr": "pixels move logits",
    "logit_ehr": "record moves logits",
    "gradient_cxr": "gradient at filters",
    "gradient_ehr": "gradient at record's embedding",
}


def _read(study: Path, name: str, texts: tuple[str, ...], numbers: tuple[str, ...]) -> pl.DataFrame:
    schema = {**dict.fromkeys(texts, pl.String), **dict.fromkeys(numbers, pl.Float64)}
    return read_table(study / "tables" / f"{name}.csv", schema)


def found(study: Path) -> dict[str, str]:
    """What the tables of `study` say of each fusion strategy. Raises InputError where a table or column is absent."""
    gain = _read(study, "gain", ("cohort", "strategy", "label", "stratum", "metric"), BOUNDS)
    gain = gain.filter(label=MACRO, stratum=ALL[0], metric="auroc")
    kinds = _read(study, "known_kinds", ("cohort", "strategy", "kind"), BOUNDS)
    removal = ("strategy", "train_cohort", "train_mechanism", "modality", "mechanism", "metric")
    loss = _read(study, "robustness_summary", removal, LOSS).rename({"train_cohort": "cohort"})
    loss = loss.filter(modality="cxr", mechanism="mcar", metric="auroc", train_mechanism="none")
    texts: dict[str, str] = {}
    for name in gain["strategy"].unique(maintain_order=True):
        parts = (
            ("all phenotypes", gain.filter(strategy=name), BOUNDS),
            ("synergistic", kinds.filter(strategy=name, kind="synergistic"), BOUNDS),
            ("lost without images", loss.filter(strategy=name), LOSS),
        )
        told = []
        for what, rows, columns in parts:
            cells = [f"{with_interval(*row[1:])} in {row[0]}" for row in rows.select("cohort", *columns).rows()]
            if cells:
                told.append(f"{what} {', '.join(cells)}")
        texts[name] = "; ".join(told) + "."
    return texts


def of_images(path: Path) -> dict[str, str]:
    """A table of what each strategy makes of images and of their causes; if the last trials found no synergy there.

    Raises InputError where file or column is absent.
    """
    numbers = [f"{use}{end}" for use in USES for end in ("", "_low", "_high")]
    schema = {"strategy": pl.String, "image": pl.String, "trials": pl.Int64, **dict.fromkeys(numbers, pl.Float64)}
    rows = read_table(path, schema)
    texts: dict[str, str] = {}
    for (name,), own in rows.group_by("strategy", maintain_order=True):
        cells = [
            [
                WAYS[row["image"]] + f", tuned ({row['trials']} trials)" * (row["trials"] > 0),
                *(with_interval(row[use], row[f"{use}_low"], row[f"{use}_high"]) for use in USES),
            ]
            for row in own.iter_rows(named=True)
        ]
        text = markdown_table(["way", *USES.values()], cells).rstrip()
        for trials, low in own.filter(image="causes").sort("trials").select("trials", "synergistic_low").tail(1).rows():
            if low is not None and low <= 0.5:
                text += "\n\n" + NO_SYNERGY.format(how="tuned" if trials else "untuned")
        texts[str(name)] = text
    return texts


def told() -> dict[str, dict[str, str]]:
    """What the files beside the document say of the strategies: {entry: {strategy: text}}."""
    return {"Found": found(STUDY), "Images": of_images(IMAGE_USE)}


def read_sensitivity(path: Path) -> pl.DataFrame:
    """Columns `strategy` and MOVES. Raises InputError where the file or a column is absent."""
    return read_table(path, {"strategy": pl.String, **dict.fromkeys(MOVES, pl.Float64)})


def _moves(sensitivity: pl.DataFrame) -> list[str]:
    """The section on what moves a strategy before it is trained."""
    rows = [
        [name, *("–" if value is None else f"{value:.2g}" for value in values)]
        for name, *values in sensitivity.select("strategy", *MOVES).rows()
    ]
    return [BEFORE, markdown_table(["strategy", *MOVES.values()], rows).rstrip()]


def _own(strategy: str) -> str:
    """Where its own tables lie, and where they are explained."""
    tables = " and ".join(f"`reports/tables/{name}.csv`" for name in FILES[strategy])
    return f"{tables}, folded on the page: [what is told](reading-the-report.md#own-tables)."


def render(cards: list[Card], texts: dict[str, dict[str, str]], sensitivity: pl.DataFrame) -> str:
    """Markdown: a table of what each declares, then the cards, group by group, by name; `texts`: what `told` gives.

    Last what moves each before it is trained, as `read_sensitivity` gives it.
    """
    groups = {group: sorted((c for c in cards if c.group == group), key=lambda c: c.name) for group in GROUPS}
    lines = [HEAD, "| strategy | group | sees | missing | interaction |", "|---|---|---|---|---|"]
    for group, members in groups.items():
        for card in members:
            sees = ", ".join(sorted(card.modalities, key=["ehr", "cxr", "presence", "metadata"].index))
            missing = card.missing if "cxr" in card.modalities else "–"
            link = f"[{card.name}](#{card.name})"
            lines.append(f"| {link} | {group} | {sees} | {missing} | {card.interaction} |")
    for group, members in groups.items():
        lines += ["", f"## {GROUPS[group]}"]
        for card in members:
            lines += ["", f"### {card.name}", "", card.summary]
            entries = {entry: card.entries[entry] for entry in ENTRIES}
            entries |= {entry: of[card.name] for entry, of in texts.items() if card.name in of}
            entries |= {"Own table": _own(card.name)} if card.name in FILES else {}
            for entry, text in entries.items():
                lines += ["", f"**{entry}.**", "", text] if text.startswith("|") else ["", f"**{entry}.** {text}"]
    lines += ["", *_moves(sensitivity)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the document."""
    argparse.ArgumentParser(prog=COMMAND, description=f"Writes {DOCUMENT} from the cards and {STUDY}.").parse_args()
    files.write_text(render([read_card(name) for name in names()], told(), read_sensitivity(SENSITIVITY)), DOCUMENT)


if __name__ == "__main__":
    main()
