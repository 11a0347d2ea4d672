"""Numbers and text for people: text from the data stays text in Markdown, numbers come with their interval."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pipeline.disclosure import HIDDEN

NOT_ESTIMABLE = "n. e."  # in a table
UNKNOWN = "not estimable"  # in a sentence
FINEST = 5  # decimals of a bound
HOW = {"none": "", "mcar": "at random", "mar": "by patient traits"}  # images are removed


def safe_markdown(text: object) -> str:
    """One line of Markdown that shows `text` as it is: no markup, no HTML, no new cell."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`|*\[\]~#$])", r"\\\1", line)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", line)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]], numbers_from: int = 1) -> str:
    """A GitHub table; columns from `numbers_from` on are aligned to the right."""
    rule = ["---" if i < numbers_from else "---:" for i in range(len(header))]
    lines = [[safe_markdown(cell) for cell in header], rule, *([safe_markdown(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def latex_row(cells: Iterable[str]) -> str:
    """A row of a LaTeX table that shows the cells' text as it is."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {each: f"\\{each}" for each in "&%$#_{}"} | {"κ": r"$\kappa$", "−": "$-$", "–": "--"}
    return " & ".join("".join(special.get(each, each) for each in cell) for cell in cells) + r" \\"


def number(value: float | None, digits: int = 3) -> str:
    """0.812, with a true minus sign; "n. e." (not estimable) for None."""
    return NOT_ESTIMABLE if value is None else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def bound(value: float, digits: int = 3) -> str:
    """As `number`, with more digits, `FINEST` at most, where it would look like 0 and is not: −0.0003 has a sign."""
    return number(value, next((each for each in range(digits, FINEST + 1) if round(value, each)), digits))


def bounds(low: float, high: float, digits: int = 3) -> str:
    """0.750–0.871; with "to" where a minus sign would stand beside the dash."""
    return f"{bound(low, digits)}{'–' if min(low, high) >= 0 else ' to '}{bound(high, digits)}"


def with_interval(value: float | None, low: float | None, high: float | None, digits: int = 3) -> str:
    """0.812 (0.750–0.871); the interval is left out where there is none."""
    if value is None or low is None or high is None:
        return number(value, digits)
    return f"{number(value, digits)} ({bounds(low, high, digits)})"


def plural(count: int | str, what: str) -> str:
    """1 run, 2 runs, 0 strategies, <10 runs, an untold number of runs."""
    many = re.sub(r"(?<![aeiou])y$", "ie", what) + "s"
    return f"an untold number of {many}" if count == HIDDEN else f"{count} {what if str(count) == '1' else many}"


def verb(count: int, one: str, many: str) -> str:
    """What stands beside `count` subjects: is, are."""
    return one if count == 1 else many


def joined(words: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join([*([", ".join(words[:-1])] if words[1:] else []), *words[-1:]])


def sentence_case(text: str) -> str:
    """The first letter as a capital, and the rest as it is."""
    return text[:1].upper() + text[1:]


def percent(share: float) -> str:
    """0.95 -> 95%, 0.975 -> 97.5%."""
    return f"{100 * share:.4g}%"
