"""`python -m pipeline.export FORMAT --out DIR`: the packed data as files that other projects read; docs/exports.md.

FORMAT is meds, carebench, medfuse or croissant. DIR is new, and out of git's sight: rows of patients must not enter it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from pipeline.errors import InputError
from pipeline.exporting.carebench import write_carebench
from pipeline.exporting.croissant import write_croissant
from pipeline.exporting.medfuse import write_medfuse
from pipeline.exporting.meds import write_meds
from pipeline.options import parser
from pipeline.params import load
from pipeline.strict import meant

FORMATS = ("meds", "carebench", "medfuse", "croissant")
OF_A_FOLD = ("meds", "medfuse")


def options() -> argparse.ArgumentParser:
    """The command's options."""
    found = parser("pipeline.export", "The packed data as files that other projects read.")
    found.add_argument("format", nargs="?", metavar="FORMAT", help=f"{', '.join(FORMATS)}: docs/exports.md")
    found.add_argument("--out", metavar="DIR", help="a new folder, outside of a git repository or ignored by it")
    found.add_argument("--fold", metavar="K", help=f"whose parts are the splits (default the first): {OF_A_FOLD}")
    return found


def export(arguments: argparse.Namespace) -> None:
    """Writes what the command line asks for. Raises InputError."""
    name = arguments.format
    if name not in FORMATS:
        said = f"{name}: not one of" if name else "missing: one of"
        raise InputError(f"FORMAT: {said} {', '.join(FORMATS)}{meant(name or '', FORMATS)}")
    if not arguments.out:
        raise InputError("--out: missing; --help tells more")
    fold = None
    if arguments.fold is not None:
        if name not in OF_A_FOLD:
            raise InputError(f"--fold: goes with {' or '.join(OF_A_FOLD)}")
        if not arguments.fold.isdigit():
            raise InputError(f"--fold: must be a number from 0, is {arguments.fold}")
        fold = int(arguments.fold)
    data, out = Path(arguments.data), Path(arguments.out)
    if name == "meds":
        write_meds(data, out, load(arguments.params, arguments.changes).ingest, fold)
    elif name == "carebench":
        write_carebench(data, out)
    elif name == "medfuse":
        write_medfuse(data, out, fold)
    else:
        write_croissant(data, out)


def main() -> None:
    """Exports, or says in a line why not."""
    logging.basicConfig(level=logging.INFO, format="export: %(message)s", stream=sys.stderr)
    try:
        export(options().parse_args())
    except InputError as error:
        sys.exit(f"export: error: {error}")


if __name__ == "__main__":
    main()
