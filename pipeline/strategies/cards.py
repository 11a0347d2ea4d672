"""A strategy's card and declarations, read from its source: nobody need import torch to tell what a strategy is.

`python -m pipeline.strategies.cards` writes docs/strategies.md, all cards, anew.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from pipeline import files
from pipeline.errors import InputError
from pipeline.strategies.registry import names

ENTRIES = ("Paper", "Idea", "Missing image", "Changed")
OPTIONAL = ("Found",)  # where what the paper claims was not seen in docs/study
DOCUMENT = Path("docs/strategies.md")
COMMAND = "python -m pipeline.strategies.cards"


@dataclass(frozen=True)
class Card:
    """`summary` is the docstring's first line; the entries follow it as `Name: text`; the class declares the rest."""

    name: str
    summary: str
    entries: dict[str, str]
    modalities: tuple[str, ...]
    missing: str
    interaction: str

    @property
    def group(self) -> str:
        """`fusion` (both modalities), `unimodal` (one), or `control`: told of images, without a pixel."""
        if {"ehr", "cxr"} <= set(self.modalities):
            return "fusion"
        return "unimodal" if len(self.modalities) == 1 else "control"


def read_card(name: str) -> Card:
    """The card of pipeline/strategies/NAME.py. Raises InputError where there is no file, or its card lacks an entry."""
    path = Path(__file__).with_name(f"{name}.py")
    if not path.is_file():
        raise InputError(f"grid.strategies: {name!r} has no file pipeline/strategies/{name}.py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    first, *lines = (ast.get_docstring(tree) or "").splitlines()
    entries: dict[str, str] = {}
    current = ""
    for line in lines:
        head, colon, text = line.partition(": ")
        if colon and head in (*ENTRIES, *OPTIONAL):
            current, entries[head] = head, text
        elif current and line.strip():
            entries[current] += f" {line.strip()}"
    missing = [entry for entry in ENTRIES if entry not in entries]
    if missing or not first.startswith(f"{name}: "):
        raise InputError(f"pipeline/strategies/{name}.py: its card lacks {', '.join(missing) or f'the line {name}: …'}")
    declared = {"modalities": "cxr ehr", "missing": "complete", "interaction": "joint"}
    for node in (node for each in tree.body if isinstance(each, ast.ClassDef) for node in each.body):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and target.id in declared:
                texts = sorted(str(leaf.value) for leaf in ast.walk(node.value) if isinstance(leaf, ast.Constant))
                declared[target.id] = " ".join(texts)
    return Card(
        name=name,
        summary=first.removeprefix(f"{name}: "),
        entries=entries,
        modalities=tuple(declared["modalities"].split()),
        missing=declared["missing"],
        interaction=declared["interaction"],
    )


GROUPS = {"unimodal": "One modality", "control": "Controls that see no pixel", "fusion": "Fusion"}
HEAD = f"""# The strategies

Written by `{COMMAND}` from the cards at the head of the files in `pipeline/strategies/`; edit those.

*Sees*: `ehr` the record, `cxr` the pixels, `presence` whether there is an image, `metadata` its hour, view and number.
*Missing*: `native` has a mechanism of its own for absent images, `complete` is a method for complete pairs that was
given one; either way the card says which. *Interaction*: `additive` if what a record adds to the answer is the same
whatever the image, `joint` if not; `check_strategy` holds each to what it declares, and to the rest of the contract
(CONTRIBUTING.md). Hyper-parameters stand under `strategies` in params.yaml.
"""


def render(cards: list[Card]) -> str:
    """Markdown: a table of what each declares, then the cards, group by group, by name."""
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
            for entry in (*ENTRIES, *OPTIONAL):
                if entry in card.entries:
                    lines += ["", f"**{entry}.** {card.entries[entry]}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    files.write_text(render([read_card(name) for name in names()]), DOCUMENT)
