"""What tables and figures of the page are about: ids to link to, tags to filter by, values to sort by."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from markupsafe import Markup, escape

from pipeline.disclosure import HIDDEN, SMALL
from pipeline.presentation.tables import TASK_TITLES, short_title
from pipeline.presentation.text import NOT_ESTIMABLE

ABSENT = ("", "—", "–", "none", NOT_ESTIMABLE, HIDDEN)
NUMBER = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?(e[+-]?\d+)?")


def unique_ids() -> Callable[[str], str]:
    """A function from a title to an id that no other title of the page has: `t-counts`, `t-counts-2`."""
    used: dict[str, int] = {}

    def anchor(text: str) -> str:
        slug = "t-" + (re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "table")
        used[slug] = used.get(slug, 0) + 1
        return slug if used[slug] == 1 else anchor(f"{text} {used[slug]}")

    return anchor


def about(text: str) -> dict[str, str]:
    """`task` and `cohort` of a title, or of a figure's name: where exactly one of them stands in it."""
    plain = text.lower().replace("_", " ")
    tasks = [name for name in TASK_TITLES if short_title(name).lower() in plain or re.search(rf"\b{name}\b", plain)]
    cohorts = [name for name in ("base", "matched") if re.search(rf"\b{name}\b", plain)]
    named = {"task": tasks, "cohort": cohorts}
    return {name: of[0] for name, of in named.items() if len(of) == 1}


def kind_of(group: str, modalities: list[str]) -> str:
    """The kind of a strategy: ensemble, EHR only, image only or fusion."""
    if group == "ensemble":
        return "ensemble"
    return "fusion" if {"ehr", "cxr"} <= set(modalities) else "image only" if "cxr" in modalities else "EHR only"


TERMS = {
    "AUROC": "the chance that a stay with the outcome gets a higher prediction than one without it; 0.5 is a coin toss",
    "AUPRC": "average precision; chance reaches the prevalence",
    "κ": "Cohen's κ, agreement beyond chance; 0 is none, 1 is perfect",
    "accuracy": "the share of stays whose class is right",
    "Holm's adjustment": "keeps the chance of any false finding among all tests small",
    "n. e.": "not estimable",
}


class Names:
    """Short names in prose: a strategy's leads to its card, and every name is explained where it first stands."""

    def __init__(self, strategies: Mapping[str, str]) -> None:
        """`strategies` have their card's summary."""
        self._said = {**strategies, **TERMS}
        self._strategies = frozenset(strategies)
        self._told: set[str] = set()
        self._new: list[str] = []
        every = "|".join(re.escape(str(escape(name))) for name in sorted(self._said, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<![\w&])({every})(?!\w)")

    def linked(self, text: str) -> Markup:
        """The text with its strategies as links; the names in it are noted as new where they are."""

        def one(hit: re.Match[str]) -> str:
            name = str(Markup(hit[1]).unescape())
            if name not in self._told:
                self._told.add(name)
                self._new.append(name)
            return f'<a href="#card-{hit[1]}">{hit[1]}</a>' if name in self._strategies else hit[1]

        return Markup(self._pattern.sub(one, str(escape(text))))

    def new(self) -> list[tuple[str, str]]:
        """The names met since it was last asked, with what they mean."""
        found, self._new = self._new, []
        return [(name, self._said[name].rstrip(".")) for name in found]


def sort_value(text: str) -> str:
    """What a cell's text sorts by: 9.9 of "9.9 %", -0.1 of "−0.1 (…)", 9.5 of "<10", 2.00001 of "2–10" and of
    "2 of 10", nothing of "n. e.", "hidden".
    """
    text = text.strip()
    if text in ABSENT:
        return ""
    parts = re.split("–| of ", text)
    ends = [sort_value(each) for each in parts] if len(parts) == 2 else []
    if ends and all(NUMBER.fullmatch(each) for each in ends):  # by the first, then by the second
        return f"{float(ends[0]) + float(ends[1]) / 1e6:.12g}"
    if text == SMALL:
        return str(int(SMALL.lstrip("<")) - 0.5)
    plain = re.sub(r"\s*%?\s*(\(.*\))?$", "", text.replace("−", "-"))
    below = plain.startswith("<")
    plain = plain.removeprefix("<")
    if not NUMBER.fullmatch(plain):
        return text
    number = float(plain.replace(",", ""))
    return f"{number / 2 if below else number:.12g}"
