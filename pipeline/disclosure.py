"""Which counts of people may stand in reports/, which is in git: one rule for every stage, table and page.

A count of 1 to 9 stays, subjects or positives is written `<10`. Where another count would give it away, since a sum of
the two is known, that one is `hidden` (secondary suppression: Hundepool et al., Statistical Disclosure Control, Wiley
2012); 0 is nobody. What is no count of people, and stays as it is: rows, bytes and files, and what is wrong with them.
docs/artefacts.md says which files the rule holds for, and what it does not reach.
"""

from __future__ import annotations

from collections.abc import Sequence

FEW = 10  # people
SMALL = f"<{FEW}"
HIDDEN = "hidden"  # a count that would give another, suppressed one away
Count = int | str  # a count, or the word that stands for it


def few(count: int) -> bool:
    """Whether so many people are too few to be counted in public; 0 is not."""
    return 0 < count < FEW


def told(count: int) -> Count:
    """A count that stands alone."""
    return SMALL if few(count) else count


def suppressed(count: int | None) -> str | None:
    """`told` as text, for a column of a CSV; None stays None."""
    return None if count is None else str(told(count))


def known(cell: Count | None) -> int | None:
    """The number that a cell of a table shows, be it read as a number or as text; None where it shows none."""
    if isinstance(cell, str):
        return int(cell) if cell.isdigit() else None
    return cell


def share(part: Count | None, whole: Count | None) -> float | None:
    """Part / whole of two cells; None where one of them shows no number, or the whole is nobody."""
    some, every = known(part), known(whole)
    return None if some is None or not every else some / every


def protected(
    counts: Sequence[int], lines: Sequence[Sequence[int]], small: Sequence[bool] | None = None
) -> list[Count]:
    """Counts that stand beside their sums: each of `lines` lists the places of counts whose sum is known.

    What is `small` (unless given: `few`) is not shown. A line that still tells such a count loses its smallest other
    one, too, nobody last, until no line does.
    """
    small = list(map(few, counts)) if small is None else small
    least = 0 if any(count == 0 for count, away in zip(counts, small, strict=True) if away) else 1
    shown = [not away for away in small]
    changed = True
    while changed:
        changed = False
        for line in lines:
            left = [i for i in line if shown[i]]
            if left and _tells([counts[i] for i in line if not shown[i]], least):
                shown[min(left, key=lambda i: (counts[i] == 0, counts[i], i))] = False
                changed = True
    return [
        count if kept else SMALL if count < FEW and (count or away) else HIDDEN
        for count, kept, away in zip(counts, shown, small, strict=True)
    ]


def _tells(away: Sequence[int], least: int) -> bool:
    """Whether the sum of counts that are not shown tells one: it is alone, or they are all as small or large as can be.

    A reader knows of `<10` that it is `least` to 9, of `hidden` that it is 10 or more.
    """
    if len(away) < 2:
        return len(away) == 1
    large = [count for count in away if count >= FEW]
    lowest = FEW * len(large) + least * (len(away) - len(large))
    return sum(away) <= lowest or (not large and sum(away) == (FEW - 1) * len(away))


def parted(
    wholes: Sequence[int], parts: Sequence[int], shown: Sequence[Count], lines: Sequence[Sequence[int]] | None = None
) -> tuple[list[Count], list[Count]]:
    """(parts, rests) of groups that stand beside their wholes, as `shown`; of `lines` (default: all) sums are known.

    A rest is protected whether it is written or not: it is the whole less the part.
    """
    count = len(wholes)
    rests = [whole - part for whole, part in zip(wholes, parts, strict=True)]
    # the rest of a whole that is not shown does not follow from it
    small = [*map(few, parts), *(few(rest) or (rest > 0 and isinstance(shown[i], str)) for i, rest in enumerate(rests))]
    over = [range(count)] if lines is None else lines
    rows = [[i, count + i] for i in range(count) if not isinstance(shown[i], str)]
    # rows first: what they hide often is the second of its column already
    found = protected([*parts, *rests], [*rows, *over, *([count + i for i in line] for line in over)], small)
    return found[:count], found[count:]


def part_of(whole: int, part: int) -> Count:
    """A part that stands beside its whole."""
    return parted([whole], [part], [told(whole)])[0][0]


def pieces(counts: Sequence[int], whole: Count) -> list[Count]:
    """Counts that make up a whole, which is shown as `whole`: where that is a word, they do not add up to it either."""
    if isinstance(whole, str):
        largest = max(range(len(counts)), key=lambda i: counts[i], default=0)
        return protected(counts, [], [few(count) or i == largest for i, count in enumerate(counts)])
    return protected(counts, [range(len(counts))])


def groups(wholes: Sequence[int], parts: Sequence[int]) -> tuple[list[Count], list[Count], list[Count]]:
    """(wholes, parts, rests) of groups that make up a cohort of known size, of whom a known number has the part."""
    shown = protected(wholes, [range(len(wholes))])
    return shown, *parted(wholes, parts, shown)


def levels(counts: Sequence[int]) -> list[Count]:
    """How many each of several rules left, in order: between two that are shown, nobody or 10 people went or more.

    The first and the last, which stand elsewhere, too, are always shown unless they are few.
    """
    found = list(map(told, counts))
    first, below = counts[0], counts[-1]
    for i in range(len(counts) - 2, 0, -1):
        if few(counts[i] - below) or few(first - counts[i]):
            found[i] = SMALL if few(counts[i]) else HIDDEN
        else:
            below = counts[i]
    return found
