"""params.yaml: every mistake is an error that names the key."""

import typing
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from pipeline.errors import InputError
from pipeline.modelling.registry import names
from pipeline.params import Params, load, read
from pipeline.strict import type_hints

HOME = Path.home()


@pytest.fixture
def content(root):
    return yaml.safe_load((root / "params.yaml").read_text())


def written(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def put(content, key, value):
    *parents, last = key.split(".")
    for parent in parents:
        content = content[parent]
    content[last] = value


def test_the_projects_own_file_loads_and_scales_resolve(root):
    params = load(root / "params.yaml")
    images, rules = read("scales.images", "cohort", path=root / "params.yaml")
    assert images == params.scales[params.scale].images
    assert read("scales.paper.images", path=root / "params.yaml") == (params.scales["paper"].images,)
    assert rules.rules == params.cohort.presets[params.cohort.preset]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("cohort.min_age", 18, r"cohort\.min_age: unknown key; did you mean min_age_years\?"),
        ("cohort.min_age_years", "18", r"cohort\.min_age_years: must be int"),
        ("cohort.min_age_years", True, r"cohort\.min_age_years: must be int"),
        ("cohort.preset", "strict", r"cohort\.preset: 'strict' is not one of"),
        ("cohort.cxr_views", ["AP", "LATERAL"], r"cohort\.cxr_views"),
        ("cohort.presets.carebench.stays", "first", r"cohort\.presets\.carebench\.stays: must be one of all, only"),
        ("cohort.min_stay_hours", 24, r"cohort\.min_stay_hours: must be at least 48, is 24"),
        ("cohort.alive_at_hours", 47.5, r"cohort\.alive_at_hours: must be at least 48, is 47\.5"),
        ("cohort.cxr_hours_before", -1, r"cohort\.cxr_hours_before: must be at least 0"),
        ("cohort.cxr_hours_after", 48.5, r"cohort\.cxr_hours_after: must be at most 48"),
        ("cohort.cxr_views", [], r"cohort\.cxr_views: must not be empty"),
        ("images.skip", ["missing"], r"images\.skip\.0: must be one of damaged"),
        ("images.skip", ["damaged", "damaged"], r"images\.skip: holds an item twice"),
        ("images.damaged", "skip", r"images\.damaged: unknown key"),
        ("embedding.encoders", ["a", "a"], r"embedding\.encoders: holds an item twice"),
        ("embedding.encoders", ["../a"], r"embedding\.encoders: must be names of cards .*; holds '\.\./a'"),
        ("embedding.encoders", ["end_to_end"], r"embedding\.encoders: must be names of cards"),
        ("embedding.workers", 0, r"embedding\.workers: must be at least 1"),
        ("training.image", "mine", r"training\.image: 'mine' is neither end_to_end nor one of embedding\.encoders"),
        ("training.image", "end_to_ent", r"training\.image: .*; did you mean end_to_end\?"),
        ("series.max_jump", 1.0, r"series\.max_jump: must be above 1, is 1\.0"),
        ("labels.phenotypes", "medfuse", r"labels\.phenotypes: must be one of hcup, legacy_medfuse"),
        ("splits.scheme", "era", r"splits\.scheme: must be one of folds, temporal"),
        ("splits.test_from_year", 2015, r"splits\.test_from_year: must be one of 2011, 2014, 2017, 2020"),
        ("scale", "huge", r"scale: 'huge' is not one of demo, paper, study, tiny$"),
        ("scale", "dmeo", r"scale: 'dmeo' is not one of demo, paper, study, tiny; did you mean demo\?$"),
        (
            "grid.strategies",
            ["late_fuson"],
            r"grid\.strategies: 'late_fuson' has no block under .*, which holds aug, .*; did you mean late_fusion\?",
        ),
        ("strategies.lstm.lr", float("nan"), r"strategies\.lstm\.lr: must be a finite number, is nan"),
        ("strategies.lstm.lr", float("inf"), r"strategies\.lstm\.lr: must be a finite number, is inf"),
        ("strategies.lstm.lr", "nan", r"strategies\.lstm\.lr: must be a finite number, is nan"),
        (
            "strategies.mind.sizes",
            [1.0, float("-inf")],
            r"strategies\.mind\.sizes\.1: must be a finite num.*-inf",
        ),
        ("training.weight_decay", float("nan"), r"training\.weight_decay: must be a finite number, is nan"),
        ("data.mimiciv", "~/mimic", rf"data\.mimiciv: ~/mimic: DVC expands neither ~ nor \$NAME; write {HOME}/mimic$"),
        ("data.mimic_cxr", "$HOME/cxr", rf"data\.mimic_cxr: .HOME/cxr: DVC expands .*; write {HOME}/cxr$"),
        ("data.mimic_cxr", "/x/${NOT_SET_}/cxr", r"data\.mimic_cxr: .*; write the whole path$"),
        ("splits.dev_share", 1.0, r"splits\.dev_share: must be in \[0, 1\)"),
        ("grid.strategies", ["lstm", "lstm"], r"grid\.strategies: holds an item twice"),
        ("grid.strategies", ["nothing"], r"grid\.strategies: 'nothing' has no block"),
        ("grid.ensembles", ["stack"], r"grid\.ensembles: 'stack' has no block under ensembles"),
        ("grid.ensembles", ["autoprognosis_m"] * 2, r"grid\.ensembles: holds an item twice"),
        (
            "ensembles.autoprognosis_m.components",
            ["gmb"],
            r"ensembles\.autoprognosis_m\.components: 'gmb' has no block under strategies",
        ),
        ("ablations.mint", {}, r"ablations: 'mint' has no block under strategies, .*; did you mean mind\?"),
        (
            "ablations.mind.half.sise",
            0.5,
            r"ablations\.mind\.half\.sise: is no knob of strategies\.mind; did you mean size\?",
        ),
        ("ablations.mind.a-b", {}, r"ablations\.mind\.a-b: may hold a-z, 0-9 and _ alone"),
        ("ensembles.autoprognosis_m.trials", 6, r"ensembles\.autoprognosis_m\.trials: must be at least 7: each"),
        (
            "ensembles.autoprognosis_m.search",
            "random",
            r"ensembles\.autoprognosis_m\.search: must be one of tpe, greedy",
        ),
        ("grid.tasks", ["los", "death"], r"grid\.tasks\.1: must be one of"),
        ("strategies.lstm.lr", 0, r"strategies\.lstm\.lr: must be a number above 0"),
        ("training.gradient_clip", 0.0, r"training\.gradient_clip"),
        ("training.least_share", 1.5, r"training\.least_share: must be in \[0, 1\], is 1\.5"),
        ("tuning.trials", 1, r"tuning\.trials: must be 0, or at least 2"),
        ("tuning.space.lr.low", 0.0, r"tuning\.space\.lr\.low: must be above 0 on a log scale"),
        ("tuning.own", {}, r"tuning\.own: unknown key; did you mean strategies\.NAME\.space\?"),
        (
            "strategies.shaspec.space.align.high",
            0.01,
            r"strategies\.shaspec\.space\.align\.high: must be above low, 0\.01",
        ),
        (
            "strategies.lstm.space",
            {"lr": {"low": 0.1, "high": 1.0, "spread": "log"}},
            r"strategies\.lstm\.space\.lr: is no knob",
        ),
        (
            "strategies.gbm.space.l2",
            {"low": 0.1, "high": 1.0, "spread": "log"},
            r"strategies\.gbm\.space: holds 4 knobs, may",
        ),
        ("scales.demo.encoders.heads", 5, r"scales\.demo\.encoders\.heads: 5 does not divide"),
        ("scales.demo.training.folds", [7], r"scales\.demo\.training\.folds: 7"),
        ("ingest.memory_gb", float("nan"), r"ingest\.memory_gb"),
        ("data", None, r"data: must be a mapping"),
        ("fairness.age_edges", [60, 40], r"fairness\.age_edges: must ascend"),
        ("fairness.pairs", ["age+age"], r"fairness\.pairs: must be two of \['admission', 'age'"),
        ("fairness.pairs", ["age+height"], r"fairness\.pairs: must be two of"),
        ("fairness.alert_rate", 0, r"fairness\.alert_rate: must be above 0"),
        ("fairness.long_stay_days", 8, r"fairness\.long_stay_days: must be one of 3, 4, 5, 6, 7, 14"),
        ("fairness.least_positives", 0, r"fairness\.least_positives: must be at least 1"),
        ("scales.demo.fairness.shuffles", 5, r"scales\.demo\.fairness\.shuffles: must be at least 10"),
    ],
)
def test_a_mistake_names_its_key(tmp_path, content, key, value, message):
    put(content, key, value)
    with pytest.raises(InputError, match=r"params\.yaml: " + message):
        load(written(tmp_path, content))


def test_fewer_folds_concern_the_chosen_scale_alone(tmp_path, content):
    """A small cohort is split in three, whatever `paper` asks for."""
    put(content, "splits.folds", 3)
    assert load(written(tmp_path, content)).splits.folds == 3
    put(content, "scale", "paper")
    with pytest.raises(InputError, match=r"scales\.paper\.training\.folds: 3 is not below splits\.folds"):
        load(written(tmp_path, content))


def test_the_temporal_scheme_has_one_fold_and_says_what_to_set(tmp_path, content):
    put(content, "splits.scheme", "temporal")
    with pytest.raises(InputError, match=r"set scales\.demo\.training\.folds to \[0\], is \[0, 1, 2\]"):
        load(written(tmp_path, content))
    put(content, "scales.demo.training.folds", [0])
    assert load(written(tmp_path, content)).splits.count == 1
    put(content, "scale", "paper")
    with pytest.raises(InputError, match=r"set scales\.paper\.training\.folds to \[0\], is \[0, 1, 2, 3, 4\]"):
        load(written(tmp_path, content))
    put(content, "scales.paper.training.folds", [0])
    assert load(written(tmp_path, content)).splits.count == 1


def test_a_missing_key_is_named(tmp_path, content):
    del content["splits"]["salt"]
    with pytest.raises(InputError, match=r"splits\.salt: missing"):
        load(written(tmp_path, content))


@pytest.mark.parametrize("key", ["strategies.nobody", "scales.nothing", "no_stage"])
def test_asking_for_a_key_that_is_not_there_names_it(root, key):
    with pytest.raises(InputError, match=f"params.yaml: {key}: missing"):
        read(key, path=root / "params.yaml")


@pytest.mark.parametrize("text", ["3e-4", "0.0003", "3.0e-04"])
def test_every_way_to_write_a_learning_rate_is_a_number(tmp_path, root, text):
    lines = (root / "params.yaml").read_text().replace("  lstm:\n    lr: 0.001", f"  lstm:\n    lr: {text}")
    assert load(written(tmp_path, lines)).strategies["lstm"]["lr"] == 3e-4


def test_no_file_and_no_yaml_are_one_line(tmp_path):
    with pytest.raises(InputError, match="not found"):
        load(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="not YAML") as caught:
        load(written(tmp_path, "a: [1\nb: {"))
    assert "\n" not in str(caught.value)


def test_words_of_errors_are_made_of_errors_alone_and_types_of_a_block_are_read_once(root, monkeypatch):
    """Every stage is a process that reads the file: looking for names that are nearly alike would take most of it."""
    asked = []
    monkeypatch.setattr("pipeline.params.rules.meant", None)
    ask = typing.get_type_hints
    monkeypatch.setattr("typing.get_type_hints", lambda kind: asked.append(kind) or ask(kind))
    type_hints.cache_clear()
    load(root / "params.yaml")
    assert Params in asked
    assert len(asked) == len(set(asked))


def test_changes_are_spelled_as_dvc_has_them(root):
    path = root / "params.yaml"
    changes = ["grid.strategies=[lstm, resnet]", "strategies.lstm.lr=3e-4", "scales.tiny.training.seeds=[0,1]"]
    params = load(path, ["scale=tiny", "training.statics=true", *changes])
    assert params.grid.strategies == ("lstm", "resnet")
    assert params.strategies["lstm"]["lr"] == 3e-4
    assert params.get("scales.training").seeds == (0, 1)
    assert params.training.statics is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.devise=cpu", r"-S training\.devise=cpu: .*params\.yaml has no such key"),
        ("training.device.x=cpu", r"-S training\.device\.x=cpu: .*params\.yaml has no such key"),
        ("training.device", r"-S training\.device: must be KEY=VALUE"),
        ("grid.strategies=${every}", r"-S grid\.strategies=\$\{every\}: .*params\.yaml has no key every"),
        ("grid.strategies=[lstm", r"-S grid\.strategies=\[lstm: not YAML"),
        ("worth.deferred=1.0", r"params\.yaml: worth\.deferred: must be in \(0, 1\), is 1\.0"),
        (
            "worth.thresholds.mortality=[0.1,1.0]",
            r"worth\.thresholds\.mortality: must be in \(0, 1\), is \[0\.1, 1\.0\]",
        ),
        ("worth.thresholds.phenotype=[0.1,0.1]", r"worth\.thresholds\.phenotype: holds an item twice"),
        ("training.device=gpu", r"params\.yaml: training\.device: must be one of auto, cpu, cuda; is 'gpu'"),
    ],
)
def test_a_change_that_cannot_be_is_named(root, change, message):
    with pytest.raises(InputError, match=message):
        load(root / "params.yaml", [change])


def test_candidates_of_verdicts_are_strategies_and_named_once(tmp_path, root):
    text = (root / "params.yaml").read_text()
    for changed, message in (
        ("  - mmtm\n  - mmtm\n", r"names a strategy twice"),
        ("  - nobody\n", r"verdicts\.fusion: 'nobody' has no block under strategies"),
    ):
        head, tail = text.split("  fusion:", 1)
        first, rest = tail.split("  - mmtm\n", 1)
        (tmp_path / "params.yaml").write_text(f"{head}  fusion:{first}{changed}{rest}")
        with pytest.raises(InputError, match=message):
            load(tmp_path / "params.yaml")


ALL = "grid.strategies=${all_strategies}"


def test_one_change_asks_for_all_strategies_here_and_in_dvc(root, tmp_path, content):
    assert set(load(root / "params.yaml", [ALL]).grid.strategies) == set(names())
    path = written(tmp_path, content)
    apply_overrides(path, [ALL])
    assert load(path).grid.strategies == load(root / "params.yaml", [ALL]).grid.strategies


def test_the_default_grid_is_part_of_all_and_in_their_order(root):
    params = load(root / "params.yaml")
    assert [name for name in params.all_strategies if name in params.grid.strategies] == list(params.grid.strategies)


def test_an_unknown_name_among_all_strategies_is_told(tmp_path, content):
    content["all_strategies"].append("nobody")
    with pytest.raises(InputError, match=r"all_strategies: 'nobody' has no block under strategies"):
        load(written(tmp_path, content))


def test_an_ensemble_of_which_the_grid_has_no_component_is_not_made(root):
    found = load(root / "params.yaml", ["grid.strategies=[umse]"])
    assert (found.grid.ensembles, list(found.ensembles)) == ((), ["autoprognosis_m"])
    assert load(root / "params.yaml", ["grid.strategies=[umse, gbm]"]).grid.ensembles == ("autoprognosis_m",)


def test_the_address_of_the_repository_may_be_left_out(tmp_path, content):
    assert load(written(tmp_path, content)).report.repository is None
    content["report"]["repository"] = "https://example.org/fusion"
    assert load(written(tmp_path, content)).report.repository == "https://example.org/fusion"
    for wrong, told in (("javascript:alert(1)", "must be an address that starts with https://"), (3, "must be str")):
        content["report"]["repository"] = wrong
        with pytest.raises(InputError, match=rf"report\.repository: {told}"):
            load(written(tmp_path, content))
