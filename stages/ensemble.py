"""ensemble: a cell of predictions for each of grid.ensembles, made from finished cells; none where there is none."""

from pathlib import Path

from pipeline import files
from pipeline.ensembles.ensemble import make
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Writes data/ensembles/NAME/{card.json,TASK/predictions.parquet} and reports/tables/{ensemble,search}.csv."""
    grid, ensembles, training = read("grid", "ensembles", "scales.training")
    for name, table in make(Path("data"), grid, ensembles, training, Path("data/ensembles")).items():
        files.write_csv(table, Path("reports/tables") / f"{name}.csv")


if __name__ == "__main__":
    main()
