"""cost: parameters and FLOPs of the grid's strategies, at demo and at paper scale, whatever scale is chosen."""

from pathlib import Path

from pipeline import files
from pipeline.cost import costs
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Writes reports/cost.csv."""
    strategies, hyper, tier, demo, demo_images, paper, paper_images = read(
        "grid.strategies",
        "strategies",
        "series.tier",
        "scales.demo.encoders",
        "scales.demo.images",
        "scales.paper.encoders",
        "scales.paper.images",
    )
    sizes = {"demo": (demo, demo_images.px), "paper": (paper, paper_images.px)}
    files.write_csv(costs(strategies, hyper, tier, sizes), Path("reports/cost.csv"))


if __name__ == "__main__":
    main()
