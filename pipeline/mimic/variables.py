"""The variables of the hourly series as frozen dataclasses, read from variables.yaml and checked.

Responsible for what a variable is (source, items, unit, range, aggregation, filling); extracting is series.py's work.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.errors import InputError
from pipeline.strict import read_yaml, type_hints

FILE = Path(__file__).with_name("variables.yaml")
OTHER = "Other"  # the vocabulary entry that takes a category's unknown texts
NO_UNIT = "None"  # in the place of a unit: as if there were none

Source = Literal["chartevents", "outputevents", "labevents", "derived"]
EVENT_SOURCES = ("chartevents", "outputevents", "labevents")  # raw tables, of which the needed itemids are read
Tier = Literal["core", "plus"]
TIERS: dict[str, tuple[Tier, ...]] = {"core": ("core",), "plus": ("core", "plus")}  # series.tier -> tiers of variables


@dataclass(frozen=True)
class Conversion:
    """x -> (x - subtract) * multiply / divide, of |x| where `absolute`: 45 °C is exactly 113 °F, on both bounds.

    A value above `up_to` has the variable's unit already, and stays as it is.
    """

    subtract: float = 0.0
    multiply: float = 1.0
    divide: float = 1.0
    absolute: bool = False
    up_to: float = math.inf

    def __call__(self, value: float) -> float:
        """`value` in the variable's unit."""
        if self.up_to < math.inf and value > self.up_to:
            return value
        return ((abs(value) if self.absolute else value) - self.subtract) * self.multiply / self.divide


Units = tuple[tuple[str, Conversion], ...]  # what a row may name, `spelled`, and how its number gets the item's unit


@dataclass(frozen=True)
class Item:
    """An itemid with its label in d_items, and how its values get the variable's unit.

    `unit`: in which its rows are, whether they name it or none; None where no number is read. `units`: all that they
    may name, this one among them.
    """

    itemid: int
    label: str
    unit: str | None
    units: Units
    conversion: Conversion = Conversion()


@dataclass(frozen=True)
class Wanted:
    """What ingest asks of an itemid's rows: whether their text is kept, and their numbers' units as in `Item`."""

    has_text: bool
    unit: str | None
    units: Units


@dataclass(frozen=True)
class Fill:
    """For model input: hours that a value is carried forward (None: to the end), and what stands where none is."""

    carry_hours: int | None
    default: Literal["train_median", "none"]


@dataclass(frozen=True)
class Derivation:
    """Where a derived variable comes from: `sum_of` others in the same hour, or a look-back.

    A look-back of `hours` grid hours ends in the hour itself; `statistic` is the sum of the hours' values, the covered
    `hours` since the first observed one, or the `rate` sum / hours / (last value of `per`), where all are covered.
    """

    sum_of: tuple[str, ...] = ()
    lookback: str = ""
    hours: int = 0
    statistic: Literal["", "sum", "rate", "hours"] = ""
    per: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the variables that must be extracted first."""
        return tuple(name for name in (*self.sum_of, self.lookback, self.per) if name)


@dataclass(frozen=True)
class Variable:
    """One variable; see variables.yaml for the meaning of the fields. `low` and `high` belong to the range."""

    name: str
    tier: Tier
    source: Source
    kind: Literal["numeric", "ordinal", "category"]
    unit: str
    items: tuple[Item, ...]
    low: float
    high: float
    aggregate: Literal["mean", "last", "sum"]
    sum_at_least: float
    fill: Fill
    vocabulary: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]  # the charted texts that stand for each entry of the vocabulary
    drop_texts: tuple[str, ...]
    hours_before: int
    steady: bool
    derive: Derivation | None

    @property
    def reads_text(self) -> bool:
        """Whether what counts is the text that was charted, not only the number."""
        return bool(self.vocabulary or self.drop_texts)

    def code(self, text: str) -> int | None:
        """Index of a charted text in the vocabulary; that of Other, or None for an ordinal, where it is unknown."""
        found = _index(self.texts).get(normalise(text))
        return _index(self.texts).get(normalise(OTHER)) if found is None and self.kind == "category" else found

    def knows(self, text: str) -> bool:
        """Whether the vocabulary holds the text."""
        return normalise(text) in _index(self.texts)

    def drops(self, text: str) -> bool:
        """Whether a charting with this text counts as not charted."""
        return normalise(text) in {normalise(dropped) for dropped in self.drop_texts}


def normalise(text: str) -> str:
    """The form in which texts are compared: trimmed, inner blanks collapsed, without case."""
    return " ".join(text.split()).casefold()


def spelled(unit: str) -> str:
    """The form in which units are compared: without blanks and case, a micro sign as u (in SQL: tables.py)."""
    return unit.lower().translate({ord("µ"): "u", ord("μ"): "u", ord(" "): None})


@functools.cache
def _index(texts: tuple[tuple[str, ...], ...]) -> dict[str, int]:
    return {normalise(text): i for i, group in enumerate(texts) for text in group}


@functools.cache
def load_all(path: Path = FILE) -> tuple[Variable, ...]:
    """All variables of the file in its order, whatever their tier.

    Raises InputError, naming file and variable, where an entry is malformed, a name stands twice, a variable has an
    itemid twice, or needs a variable that is not there.
    """
    try:
        content = read_yaml(path)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name}: cannot be read: {' '.join(str(error).split())}") from None
    try:
        conversions = {name: Conversion(**fields) for name, fields in content["conversions"].items()}
        families = {spelled(unit): family for unit, family in content["units"].items()}
        variables = tuple(
            _variable(entry, conversions, families, content["vocabularies"]) for entry in content["variables"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path.name}: {error}") from None
    names = [variable.name for variable in variables]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path.name}: variable {name} stands twice")
    for variable in variables:
        ids = [item.itemid for item in variable.items]
        if len(set(ids)) < len(ids):
            raise InputError(f"{path.name}: {variable.name} names an itemid twice")
    for variable in variables:
        for need in variable.derive.needs if variable.derive else ():
            if need not in names:
                raise InputError(f"{path.name}: {variable.name} needs {need}, which is no variable")
    return variables


_FIELDS = {
    *("name", "tier", "source", "kind", "unit", "units", "items", "range", "aggregate", "sum_at_least"),
    *("fill", "vocabulary", "drop_texts", "hours_before", "steady", "derive"),
}


def _units(unit: str, family: dict[str, Any], own: dict[str, dict[str, float]]) -> Units:
    """What rows may name where they should be in `unit`: none at all, the units that mean the same, and others."""
    if unknown := set(family) - {"same", "others"}:
        raise ValueError(f"units: {unit}: unknown field {', '.join(sorted(unknown))}")
    same = [NO_UNIT, unit, *family.get("same", ())]
    found: dict[str, Conversion] = {}
    for text, fields in [*((text, {}) for text in same), *family.get("others", {}).items(), *own.items()]:
        if spelled(text) in found:
            raise ValueError(f"units: {unit}: {text} stands twice")
        found[spelled(text)] = Conversion(**fields)
    return tuple(found.items())


def _items(
    entry: dict[str, Any], conversions: dict[str, Conversion], families: dict[str, dict[str, Any]]
) -> Iterator[Item]:
    for item in entry.get("items", ()):
        unit = item.get("unit", entry["unit"]) if entry["kind"] == "numeric" else None
        if "units" in entry and unit != entry["unit"]:
            raise ValueError(f"{entry['name']}: units are those of {entry['unit']}, {item['itemid']} is in {unit}")
        yield Item(
            item["itemid"],
            item["label"],
            unit,
            _units(unit, families.get(spelled(unit), {}), entry.get("units", {})) if unit else (),
            conversions[item["conversion"]] if "conversion" in item else Conversion(),
        )


def _variable(
    entry: dict[str, Any],
    conversions: dict[str, Conversion],
    families: dict[str, dict[str, Any]],
    vocabularies: dict[str, Any],
) -> Variable:
    name = entry["name"]
    unknown = set(entry) - _FIELDS
    if unknown:
        raise ValueError(f"{name}: unknown field {', '.join(sorted(unknown))}")
    hints = type_hints(Variable)
    for field in ("tier", "source", "kind", "aggregate"):
        if entry.get(field) not in typing.get_args(hints[field]):
            raise ValueError(f"{name}: {field} {entry.get(field)!r} is not one of {typing.get_args(hints[field])}")
    vocabulary = [
        next(iter(each.items())) if isinstance(each, dict) else (each, [each])
        for each in (vocabularies[entry["vocabulary"]] if "vocabulary" in entry else ())
    ]
    low, high = entry.get("range") or (None, None)
    derive = entry.get("derive")
    variable = Variable(
        name=name,
        tier=entry["tier"],
        source=entry["source"],
        kind=entry["kind"],
        unit=entry["unit"],
        items=tuple(_items(entry, conversions, families)),
        low=-math.inf if low is None else float(low),
        high=math.inf if high is None else float(high),
        aggregate=entry["aggregate"],
        sum_at_least=float(entry.get("sum_at_least", -math.inf)),
        fill=Fill(**entry["fill"]),
        vocabulary=tuple(name for name, _ in vocabulary),
        texts=tuple(tuple(texts) for _, texts in vocabulary),
        drop_texts=tuple(entry.get("drop_texts", ())),
        hours_before=int(entry.get("hours_before", 0)),
        steady=bool(entry.get("steady", False)),
        derive=Derivation(**{**derive, "sum_of": tuple(derive.get("sum_of", ()))}) if derive else None,
    )
    if (variable.source == "derived") != (derive is not None) or (derive is None) != bool(variable.items):
        raise ValueError(f"{name}: a derived variable has `derive`, every other one has `items`")
    if (variable.kind == "numeric") == bool(variable.vocabulary):
        raise ValueError(f"{name}: ordinals and categories have a vocabulary, numeric variables have none")
    if variable.kind == "category" and OTHER not in variable.vocabulary:
        raise ValueError(f"{name}: the vocabulary lacks {OTHER!r}")
    if variable.kind != "numeric":  # the codes themselves
        variable = dataclasses.replace(variable, low=0.0, high=float(len(variable.vocabulary) - 1))
    if variable.hours_before < 0:
        raise ValueError(f"{name}: hours_before {variable.hours_before} is below 0")
    if not variable.low < variable.high:
        raise ValueError(f"{name}: range {variable.low} to {variable.high} is empty")
    return variable


def load_variables(tier: str) -> tuple[Variable, ...]:
    """The variables that models see at a tier (`core`: 27; `plus`: these and more behind them), in column order."""
    if tier not in TIERS:
        raise InputError(f"series.tier: {tier!r} is not a tier of {FILE.name}")
    return tuple(variable for part in TIERS[tier] for variable in load_all() if variable.tier == part)


def with_helpers(variables: tuple[Variable, ...]) -> tuple[Variable, ...]:
    """`variables` and, behind them, those that they are derived from and that are not among them."""
    by_name = {variable.name: variable for variable in load_all()}
    found = {variable.name: variable for variable in variables}
    todo = list(variables)
    while todo:
        derive = todo.pop(0).derive
        for name in derive.needs if derive else ():
            if name not in found:
                found[name] = by_name[name]
                todo.append(by_name[name])
    return tuple(found.values())


def needed_itemids(source: str) -> dict[int, Wanted]:
    """Itemids of all variables, whatever their tier, that come from `chartevents`, ...; ascending, with what is wanted.

    Raises InputError where the numbers of one itemid are read in two units.
    """
    found: dict[int, Wanted] = {}
    for variable in load_all():
        for item in variable.items if variable.source == source else ():
            before = found.get(item.itemid, Wanted(False, None, ()))
            if None not in (before.unit, item.unit) and before.units != item.units:
                raise InputError(f"{FILE.name}: itemid {item.itemid} is in {before.unit} and in {item.unit}")
            measured = before if item.unit is None else item
            found[item.itemid] = Wanted(before.has_text or variable.reads_text, measured.unit, measured.units)
    return dict(sorted(found.items()))
