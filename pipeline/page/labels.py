"""What tables and figures of the page are about: ids to link to, tags to filter by, values to sort by."""

from __future__ import annotations

import re
from collections.abc import Callable

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


def sort_value(text: str) -> str:
    """What a cell's text sorts by: 9.9 of "9.9 %", -0.1 of "−0.1 (…)", 9.5 of "<10", nothing of "n. e.", "hidden"."""
    text = text.strip()
    if text in ABSENT:
        return ""
    if text == SMALL:
        return str(int(SMALL.lstrip("<")) - 0.5)
    plain = re.sub(r"\s*%?\s*(\(.*\))?$", "", text.replace("−", "-"))
    below = plain.startswith("<")
    plain = plain.removeprefix("<")
    if not NUMBER.fullmatch(plain):
        return text
    number = float(plain.replace(",", ""))
    return f"{number / 2 if below else number:.12g}"
