"""Who was scored, as tables tell it: cohorts and strata that are parts of one another, and labels beside their sum."""

import polars as pl
import pytest

from pipeline.evaluation.scores import MACRO, in_cohort, tell
from pipeline.tasks import get_task

MORTALITY, PHENOTYPE, LOS = (get_task(name) for name in ("mortality", "phenotype", "los"))


def people(with_image: int, without: int, dead: tuple[int, int] = (0, 0)) -> pl.DataFrame:
    """Stays with and without an image, the first so many of either dead; a tenth and more has every phenotype."""
    has_cxr = [True] * with_image + [False] * without
    died = [i < dead[0] for i in range(with_image)] + [i < dead[1] for i in range(without)]
    frame = pl.DataFrame({"has_cxr": has_cxr, "icu_mortality": died, "los_class": 0})
    return frame.with_columns(pl.lit(True).alias(label) for label in PHENOTYPE.labels)


@pytest.mark.parametrize(
    ("frame", "base", "matched"),
    [
        (people(40, 60, (12, 20)), ("100", "32"), ("40", "12")),
        (people(40, 60, (3, 0)), ("100", "<10"), ("40", "<10")),
        (people(40, 60, (12, 3)), ("100", "15"), ("40", "hidden")),  # 3 died without an image: 15 less 12
        (people(40, 3, (12, 0)), ("43", "12"), ("hidden", "12")),
        (people(40, 60, (36, 20)), ("100", "56"), ("40", "hidden")),  # 4 survived
        (people(4, 60, (0, 20)), ("64", "20"), ("<10", "0")),
        (people(0, 60, (0, 20)), ("60", "20"), ("0", "0")),
    ],
)
def test_the_matched_cohort_gives_nobody_of_the_base_cohort_away(frame, base, matched):
    for cohort, expected in (("base", base), ("matched", matched)):
        (told,) = tell(frame, [in_cohort(cohort)], MORTALITY)
        assert (told.n, told.positives["icu_mortality"]) == expected


def test_length_of_stay_has_no_positives():
    (told,) = tell(people(20, 20), [pl.lit(True)], LOS)
    assert (told.n, dict(told.positives)) == ("40", {MACRO: None})


def test_a_lone_label_of_few_does_not_follow_from_the_sum_over_labels():
    first, second, *others = PHENOTYPE.labels
    frame = people(30, 30).with_row_index("i")
    frame = frame.with_columns(
        (pl.col("i") < 4).alias(first), (pl.col("i") < 15).alias(second), *((pl.col("i") < 20).alias(n) for n in others)
    )
    (told,) = tell(frame, [pl.lit(True)], PHENOTYPE)
    assert told.positives[first] == "<10"
    assert told.positives[second] == "hidden"  # the smallest other
    assert {told.positives[name] for name in others} == {"20"}
    assert told.positives[MACRO] == str(4 + 15 + 20 * 23)


def test_groups_of_one_stratum_hide_one_another():
    frame = people(50, 50).with_columns(icd_version=pl.Series([9] * 5 + [10] * 95))
    groups = [pl.col("icd_version") == version for version in (9, 10)]
    assert [told.n for told in tell(frame, groups, MORTALITY)] == ["<10", "hidden"]
    frame = frame.with_columns(icd_version=pl.Series([9] * 45 + [10] * 50 + [None] * 5))
    assert [told.n for told in tell(frame, groups, MORTALITY)] == ["hidden", "50"]  # five have no version
