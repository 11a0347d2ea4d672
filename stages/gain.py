"""gain: question 1, when fusion helps: differences to both single modalities, the ladder, prevalence by coding."""

from pathlib import Path

from pipeline.params import read
from pipeline.questions.when.gain import gain
from pipeline.questions.when.ladder import ladder
from pipeline.questions.when.source import source
from pipeline.questions.when.tables import icd, write
from pipeline.tasks import phenotype_slugs
from stages import stage


@stage
def main() -> None:
    """Writes gain, chosen, variance, image_use, ladder and icd to reports/tables."""
    grid, training, evaluation, verdicts, size = read(
        "grid", "scales.training", "evaluation", "verdicts", "scales.evaluation"
    )
    known = source(Path("data"), grid, training, evaluation, verdicts, size.draws)
    found = gain(known)
    labels = phenotype_slugs() if "phenotype" in grid.tasks else ()
    write(found, ladder(known), icd(known.people, labels), verdicts, Path("reports") / "tables")


if __name__ == "__main__":
    main()
