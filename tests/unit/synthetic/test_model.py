"""The structural model: prevalences, what each kind of truth means, missingness, disparity, length of stay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.params import Synthetic
from pipeline.synthetic import model, people
from pipeline.tasks import phenotype_slugs

COUNT = 40_000


@pytest.fixture(scope="module")
def causes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {name: cause.draw(rng, COUNT) for name, cause in model.CAUSES.items()}


def label(slug: str, causes: dict[str, np.ndarray], signal: float = 1.0) -> np.ndarray:
    chance = model.probability(model.PHENOTYPES[slug], causes, signal)
    return np.random.default_rng(5).random(COUNT) < chance


def slugs(kind: str) -> list[str]:
    return [slug for slug, effect in model.PHENOTYPES.items() if effect.kind == kind]


def seen_in(slug: str) -> set[str]:
    effect = model.PHENOTYPES[slug]
    return {model.CAUSES[name].seen_in for name in (*effect.causes, *(effect.interaction or ())[:2])}


def test_covers_the_25_phenotypes_with_every_kind_several_times() -> None:
    assert sorted(model.PHENOTYPES) == sorted(phenotype_slugs())
    for kind in ("ehr_only", "cxr_only", "complementary", "synergistic", "redundant", "noise"):
        assert len(slugs(kind)) >= 3, kind


def test_causes_have_mean_0_and_variance_1_and_are_independent(causes: dict[str, np.ndarray]) -> None:
    drawn = np.array(list(causes.values()))
    assert np.abs(drawn.mean(axis=1)).max() < 0.02
    assert np.abs(np.cov(drawn) - np.eye(len(drawn))).max() < 0.03


@pytest.mark.parametrize(("share", "spread"), [(0.5, 0.4), (0.18, 0.0), (0.25, 0.7)])
def test_a_cause_on_two_levels_is_on_the_higher_one_as_often_as_its_share_says(share: float, spread: float) -> None:
    cause = model.Cause("ehr", "", share, spread)
    drawn = cause.draw(np.random.default_rng(1), COUNT)
    assert drawn.mean() == pytest.approx(0, abs=0.02)
    assert drawn.std() == pytest.approx(1, abs=0.02)
    low, high = cause.levels
    assert ((1 - share) * low + share * high) == pytest.approx(0, abs=1e-12)
    assert (drawn > (low + high) / 2).mean() == pytest.approx(share, abs=0.02 + spread / 4)
    assert len(np.unique(drawn)) == (COUNT if spread else 2)


def test_a_modality_shows_a_cause_on_levels_as_it_is_or_as_another_draw() -> None:
    rng = np.random.default_rng(2)
    for name, shown_exactly in (("air", True), ("opacity", False), ("heart_size", False)):
        cause = model.CAUSES[name].draw(rng, COUNT)
        shown = people.shows(rng, cause, name, 0.25, 0.55)
        assert (set(np.unique(shown)) <= set(model.CAUSES[name].levels)) == shown_exactly
        assert np.corrcoef(cause, shown)[0, 1] == pytest.approx(0.55, abs=0.03), name
    opacity = model.CAUSES["opacity"].draw(rng, COUNT)
    noiseless = people.shows(rng, opacity, "opacity", 0.0, 0.55)
    assert (noiseless == opacity).mean() == pytest.approx(0.55, abs=0.01)


@pytest.mark.parametrize(
    ("kind", "modalities"),
    [
        ("ehr_only", {"ehr"}),
        ("cxr_only", {"cxr"}),
        ("complementary", {"ehr", "cxr"}),
        ("synergistic", {"ehr", "cxr"}),
        ("redundant", {"both"}),
        ("noise", set()),
    ],
)
def test_a_kind_depends_on_causes_seen_where_its_name_says(kind: str, modalities: set[str]) -> None:
    for slug in slugs(kind):
        assert seen_in(slug) == modalities, slug


@pytest.mark.parametrize("signal", [0.0, 0.5, 1.0])
def test_prevalence_is_the_stated_one_at_any_signal(causes: dict[str, np.ndarray], signal: float) -> None:
    for effect in (*model.PHENOTYPES.values(), model.ICU_MORTALITY):
        assert 0.10 <= effect.prevalence <= 0.50
        assert model.probability(effect, causes, signal).mean() == pytest.approx(effect.prevalence, abs=0.012)


@pytest.mark.parametrize("slug", slugs("synergistic"))
def test_synergistic_means_that_only_the_interaction_counts(slug: str, causes: dict[str, np.ndarray]) -> None:
    first, second, _ = model.PHENOTYPES[slug].interaction or ("", "", 0.0)
    y = label(slug, causes)
    for name in causes:
        assert abs(np.corrcoef(causes[name], y)[0, 1]) < 0.02, name
    assert np.corrcoef(np.sign(causes[first] * causes[second]), y)[0, 1] > 0.3


@pytest.mark.parametrize("slug", slugs("complementary"))
def test_complementary_means_that_each_cause_counts_by_itself(slug: str, causes: dict[str, np.ndarray]) -> None:
    y = label(slug, causes)
    for name in model.PHENOTYPES[slug].causes:
        assert abs(np.corrcoef(causes[name], y)[0, 1]) > 0.25, name


@pytest.mark.parametrize("slug", slugs("noise"))
def test_noise_depends_on_nothing(slug: str, causes: dict[str, np.ndarray]) -> None:
    chance = model.probability(model.PHENOTYPES[slug], causes, 1.0)
    assert np.ptp(chance) == 0
    assert chance[0] == pytest.approx(model.PHENOTYPES[slug].prevalence)


@pytest.mark.parametrize("slug", [*slugs("ehr_only"), *slugs("cxr_only"), *slugs("redundant"), *slugs("complementary")])
def test_planted_probabilities_rank_well(slug: str, causes: dict[str, np.ndarray]) -> None:
    from sklearn.metrics import roc_auc_score

    y = label(slug, causes)
    assert 0.82 < roc_auc_score(y, model.probability(model.PHENOTYPES[slug], causes, 1.0)) < 0.93
    weak = label(slug, causes, signal=0.3)
    assert roc_auc_score(weak, model.probability(model.PHENOTYPES[slug], causes, 0.3)) < 0.75


def test_length_of_stay_classes_sum_to_one_and_match_draws(causes: dict[str, np.ndarray]) -> None:
    planted = model.los_probabilities(causes, 1.0)
    np.testing.assert_allclose(planted.sum(axis=1), 1)
    days = 2 + np.exp(
        model.los_location(causes, 1.0) + model.LOS_SPREAD * np.random.default_rng(1).standard_normal(COUNT)
    )
    drawn = np.bincount(np.searchsorted([3, 4, 5, 6, 7, 14], days, side="right"), minlength=7) / COUNT
    np.testing.assert_allclose(planted.mean(axis=0), drawn, atol=0.008)


GROUPS = np.array(["EMERGENCY", "OBSERVATION", "ELECTIVE"])


@given(strength=st.floats(0, 3), year=st.integers(2008, 2019))
@settings(max_examples=60, deadline=None)
def test_missingness_depends_on_admission_group_and_era_with_its_strength(strength: float, year: int) -> None:
    chance = model.image_probability(GROUPS, np.full(3, year), strength)
    assert np.all((chance >= 0) & (chance <= 1))
    if strength == 0:
        assert np.ptp(chance) == 0
        assert chance[0] == model.image_probability(GROUPS[:1], np.array([2019]), 0)[0]
    elif 2011 <= year <= 2016:
        assert chance[0] >= chance[1] >= chance[2]
    elif strength >= 1:
        assert np.all(chance == 0)


@pytest.mark.parametrize(("disparity", "share"), [(0.0, 1.0), (1.0, 0.55), (5.0, 0.0)])
def test_disparity_takes_image_signal_from_one_group_alone(disparity: float, share: float) -> None:
    np.testing.assert_allclose(model.image_signal(np.array(["M", "F"]), disparity), [1.0, share])


def test_description_holds_kinds_and_coefficients() -> None:
    told = model.describe(Synthetic(1, 1.0, 1.0, 0.5))
    assert list(told["phenotypes"]) == list(phenotype_slugs())
    assert told["phenotypes"]["shock"] == {
        "kind": "ehr_only",
        "prevalence": 0.16,
        "intercept": pytest.approx(model.intercept(model.PHENOTYPES["shock"], 0.5)),
        "causes": {"circulation": pytest.approx(1.2)},
    }
    assert told["phenotypes"]["acute_myocardial_infarction"]["interaction"]["log_odds"] == pytest.approx(2.0)
    assert told["disparity"] == {"attribute": "gender", "group": "F", "share_of_signal_shown": pytest.approx(0.55)}
