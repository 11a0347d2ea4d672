"""`python -m pipeline.scales [SCALE ...]`: the scales of params.yaml side by side, in those knobs that differ."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipeline.errors import InputError
from pipeline.params import Params, flat, load
from pipeline.strict import meant


def differences(params: Params, names: Sequence[str]) -> list[list[str]]:
    """A head and a row a knob (its key below scales.X, its value in each scale); the same in all: no row.

    Raises InputError for a scale that there is not.
    """
    for name in names:
        if name not in params.scales:
            there = f"{', '.join(params.scales)}{meant(name, params.scales)}"
            raise InputError(f"scales: {name!r} is not one of {there}")
    columns = [dict(flat(params.scales[name])) for name in names]
    rows = [[key, *(column[key] for column in columns)] for key in columns[0]]
    return [["", *names], *(row for row in rows if len(set(row[1:])) > 1)]


def main() -> None:
    """Prints the table."""
    found = argparse.ArgumentParser(prog="python -m pipeline.scales", description="In which knobs scales differ.")
    found.add_argument("scales", nargs="*", metavar="SCALE", help="a block of `scales` in params.yaml (default: all)")
    chosen = found.parse_args().scales
    try:
        params = load()
        rows = differences(params, chosen or list(params.scales))
    except InputError as error:
        sys.exit(f"scales: error: {error}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
