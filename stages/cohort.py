"""data/interim -> data/cohort: the stays that fulfil the rules, their chest X-rays, and how many each rule left."""

import dataclasses
import logging
from pathlib import Path

from pipeline import files
from pipeline.mimic import cohort
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Write stays, image links, attrition and the rules they were made by, and the counts."""
    (rules,) = read("cohort")
    every, stays, attrition, links = cohort.make(Path("data/interim"), rules)
    counts = cohort.summarise(every, stays, attrition, links.counts)
    for name, rows in (counts["oddities"] | links.counts).items():
        if rows:
            logging.info("%d %s", rows, name.replace("_", " "))
    logging.info("%d stays, %d with an image", stays.height, stays["has_cxr"].sum())
    files.write_parquet(stays, "data/cohort/stays.parquet")
    files.write_parquet(links.images, "data/cohort/cxr.parquet")
    files.write_json(dataclasses.asdict(rules), "data/cohort/rules.json")
    files.write_csv(attrition, "data/cohort/attrition.csv")
    files.write_json(counts, "reports/data/cohort.json")


if __name__ == "__main__":
    main()
