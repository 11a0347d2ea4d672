"""What the commands that read params share on their command line: --params, --data, and -S as `dvc exp run` has it."""

from __future__ import annotations

import argparse

from pipeline.params import FILE


def add_changes(found: argparse.ArgumentParser) -> None:
    """Adds -S: `changes`, a list of KEY=VALUE."""
    found.add_argument(
        "-S", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="a change of the params"
    )


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser with the three options: `params` (a path), `data` (a path), `changes` (a list of KEY=VALUE)."""
    found = argparse.ArgumentParser(prog=f"python -m {prog}", description=description)
    found.add_argument("--params", default=str(FILE), help=f"the file to read (default {FILE})")
    found.add_argument("--data", default="data", help="the folder of the packed data (default data)")
    add_changes(found)
    return found
