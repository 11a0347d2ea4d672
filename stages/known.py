"""known: on the synthetic hospital, what was planted and what was found; on other data an empty table."""

from pathlib import Path

from pipeline.evaluation.reading import read_table
from pipeline.params import read
from pipeline.questions.known.known import known_answers, nothing_known
from pipeline.questions.known.tables import write
from pipeline.questions.known.truth import synthetic
from pipeline.questions.when.contest import SCHEMA
from pipeline.questions.when.information import SCHEMA as INFORMATION
from pipeline.questions.when.source import source
from stages import stage


@stage
def main() -> None:
    """Writes known, known_kinds and known_rules to reports/tables."""
    grid, training, evaluation, verdicts, size = read(
        "grid", "scales.training", "evaluation", "verdicts", "scales.evaluation"
    )
    data, tables = Path("data"), Path("reports") / "tables"
    if synthetic(data):
        known = source(data, grid, training, evaluation, verdicts, size.draws)
        found = read_table(tables / "gain.csv", SCHEMA), read_table(tables / "information.csv", INFORMATION)
        write(known_answers(known, *found), tables)
    else:
        write(nothing_known(), tables)


if __name__ == "__main__":
    main()
