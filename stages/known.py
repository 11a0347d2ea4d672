"""known: on the synthetic hospital, what was planted and what was found; on other data an empty table."""

from pathlib import Path

from pipeline import files
from pipeline.evaluation.reading import read_table
from pipeline.params import read
from pipeline.questions.known.known import known_answers, known_markdown, nothing_known, synthetic
from pipeline.questions.when.gain import SCHEMA, source
from stages import stage


@stage
def main() -> None:
    """Writes known and known_kinds to reports/tables."""
    grid, training, evaluation, verdicts, size = read(
        "grid", "scales.training", "evaluation", "verdicts", "scales.evaluation"
    )
    data, tables = Path("data"), Path("reports") / "tables"
    if synthetic(data):
        known = source(data, grid, training, evaluation, verdicts, size.draws)
        by_label, kinds = known_answers(known, read_table(tables / "gain.csv", SCHEMA))
    else:
        by_label, kinds = nothing_known()
    files.write_csv(by_label, tables / "known.csv")
    files.write_csv(kinds, tables / "known_kinds.csv")
    files.write_text(known_markdown(by_label, kinds), tables / "known.md")


if __name__ == "__main__":
    main()
