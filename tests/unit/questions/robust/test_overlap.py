"""Overlap: stays where an image could have been."""

import numpy as np
import polars as pl

from pipeline.data.masks import absence_odds
from pipeline.questions.robust.overlap import overlap
from tests.support import made_up_data as prepared


def test_overlap_counts_stays_where_an_image_could_have_been_and_hides_small_counts(tmp_path):
    data = prepared.fabricate(tmp_path, n=120)
    table = overlap(data, (0,))
    stays = pl.read_parquet(data / "cohort/stays.parquet")
    splits = pl.read_parquet(data / "splits.parquet").filter(fold=0)
    part = stays.join(splits, on="stay_id", maintain_order="left")["part"]
    odds, _ = absence_odds(stays, (part == "train").to_numpy())
    assert "<10" in table["stays"].to_list()
    for image, status in (("present", "present"), ("absent", "not_taken")):
        chance = 1 / (1 + odds[(stays["cxr_status"] == status).to_numpy()])
        counts, _ = np.histogram(chance, bins=10, range=(0, 1))
        expected = ["<10" if 0 < count < 10 else str(count) for count in counts]
        assert table.filter(image=image)["stays"].to_list() == expected
