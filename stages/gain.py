"""gain: question 1, when fusion helps: differences to both single modalities, and the tables beside them."""

from pathlib import Path

from pipeline.evaluation.reading import read_columns
from pipeline.params import read
from pipeline.questions.when.answer import write as write_answer
from pipeline.questions.when.gain import gain
from pipeline.questions.when.information import information_table
from pipeline.questions.when.ladder import ladder
from pipeline.questions.when.source import source
from pipeline.questions.when.tables import icd, write
from pipeline.questions.when.target import target
from pipeline.questions.when.worth import worth
from pipeline.questions.when.worth_section import write as write_worth
from pipeline.tasks import phenotype_slugs
from stages import stage


@stage
def main() -> None:
    """Writes gain, chosen, variance, image_use, ladder, information, target, icd, worth and defer to
    reports/tables, and what of it answers the question to reports/metrics/answer."""
    grid, training, evaluation, verdicts, knobs, size = read(
        "grid", "scales.training", "evaluation", "verdicts", "worth", "scales.evaluation"
    )
    saw = read_columns(Path("data/exposure.parquet"), ["subject_id", "saw"])
    known = source(Path("data"), grid, training, evaluation, verdicts, size.draws, saw)
    found = gain(known)
    labels = phenotype_slugs() if "phenotype" in grid.tasks else ()
    beside = {
        "ladder": ladder(known),
        "icd": icd(known.people, labels),
        "information": information_table(known),
        "target": target(known),
    }
    tables = Path("reports") / "tables"
    write(found, beside, verdicts, tables)
    write_answer(found.table, Path("reports") / "metrics" / "answer")
    write_worth(worth(known, knobs), tables, evaluation.confidence)


if __name__ == "__main__":
    main()
