"""forgetting: what is left of what was learned first, as finished runs' encoders see it; for CMCL and PAL."""

from pathlib import Path

from pipeline import files
from pipeline.evaluation.cells import read_people
from pipeline.evaluation.scores import Sampler
from pipeline.forgetting.cmcl import forgetting_cmcl
from pipeline.forgetting.pal import forgetting_pal
from pipeline.forgetting.tables import over_runs
from pipeline.params import read
from pipeline.training.store import Store
from stages import stage


@stage
def main() -> None:
    """Writes reports/tables/forgetting_{cmcl,pal}.csv; without rows where the grid has no such strategy."""
    grid, evaluation, training, size = read("grid", "evaluation", "scales.training", "scales.evaluation")
    data = Path("data")
    store = Store.of(data)
    sampler = Sampler(read_people(data, [], training.folds), size.draws, evaluation.seed)
    for strategy, rows_of in (("cmcl", forgetting_cmcl), ("pal", forgetting_pal)):
        rows = rows_of(store, data, grid.tasks, sampler) if strategy in grid.strategies else []
        table = over_runs(rows, f"forgetting_{strategy}", sampler.test_share, evaluation.confidence)
        files.write_csv(files.significant(table), Path("reports/tables") / f"forgetting_{strategy}.csv", digits=6)


if __name__ == "__main__":
    main()
