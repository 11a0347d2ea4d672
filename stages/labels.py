"""data/interim, data/cohort -> data/cohort/labels.parquet: deaths, length of stay, phenotypes."""

import logging

import polars as pl

from pipeline import files
from pipeline.mimic.labels import make_labels, summarise
from pipeline.mimic.phenotypes import classify
from pipeline.params import read
from stages import stage


@stage
def main() -> None:
    """Write the labels and their counts."""
    (rules,) = read("labels")
    stays = pl.read_parquet("data/cohort/stays.parquet")
    admissions = pl.read_parquet("data/interim/admissions.parquet")
    diagnoses = pl.read_parquet("data/interim/diagnoses.parquet")
    labels = make_labels(stays, admissions, classify(diagnoses, rules.phenotypes))
    counts = summarise(stays, labels, admissions, classify(diagnoses))
    if counts["codes"]["unknown_rows"]:
        logging.warning("%d diagnoses have a code that no table knows", counts["codes"]["unknown_rows"])
    files.write_parquet(labels, "data/cohort/labels.parquet")
    files.write_json(counts, "reports/data/labels.json")


if __name__ == "__main__":
    main()
