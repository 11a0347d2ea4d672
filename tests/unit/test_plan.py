"""The plan's arithmetic; batches are not timed here, and the GPU is made up."""

import dataclasses

import pytest
import yaml

from pipeline import plan, timing
from pipeline.embedding.card import read_card
from pipeline.embedding.embed import identity
from pipeline.embedding.price import Price
from pipeline.errors import InputError
from pipeline.files import write_json
from pipeline.params import load
from pipeline.plan import Cohort, Gpu, asked, estimate, summary
from pipeline.timing import Cost, Stopwatch
from pipeline.training.packing import CONTEXT_MB, USABLE, Crew
from tests.support.embedded import VECTORS, WIDTH, write_card

PEAKS = {"transformer": 1_000.0, "resnet": 50_000.0}


@pytest.fixture
def params(root):
    names = ",".join([*PEAKS, "gbm"])
    changes = ["scale=tiny", f"grid.strategies=[{names}]", "grid.tasks=[mortality]"]
    return load(root / "params.yaml", changes)


@pytest.fixture
def timed(monkeypatch):
    """A batch of 0.1 s; with others on the GPU half as long again. Returns how many there were."""
    asked = []

    def together(spec, px, share, count):
        asked.append((spec.strategy, count))
        return 0.15

    cost = lambda spec, px, share: Cost(0.1, 0.01, 5.0, PEAKS.get(spec.strategy, 0.0))  # noqa: E731
    monkeypatch.setattr(timing, "time_batch", cost)
    monkeypatch.setattr(plan, "time_together", together)
    return asked


def lines_of(params, cohort, gpu=None):
    return list(estimate(params, asked(params)[0], {}, cohort, Stopwatch(16), gpu))


def test_gpu_hours_with_several_runs_are_those_of_one_slowed_down_and_shared(params, timed):
    lines = {line.strategy: line for line in lines_of(params, Cohort(1000, 400, True), Gpu(40_000.0, 900.0, 8))}
    count = 8  # memory would hold 14 of 1,000 + 900 + 600 MB; a run has a core
    assert int(USABLE * 40_000 / (1_900 + CONTEXT_MB)) == 14
    assert timed == [("transformer", count)] * 2  # once a cohort
    assert lines["transformer"].per_gpu == count
    assert lines["transformer"].packed_hours == pytest.approx(lines["transformer"].hours * 1.5 / count)
    assert lines["resnet"].per_gpu == 1  # it does not fit twice
    assert lines["resnet"].packed_hours == pytest.approx(lines["resnet"].hours)
    assert lines["gbm"].per_gpu == 1  # fitted on the CPU


def test_without_a_gpu_none_is_spoken_of(params, timed):
    lines = lines_of(params, Cohort(1000, 400, True))
    assert timed == []
    text = "\n".join([plan.head(), *map(plan.row, lines), summary(params, lines, Crew(2), Stopwatch(16))])
    assert "GPU" not in text
    hours = sum(line.hours for line in lines)
    assert f"{hours * 3600 / 2:.0f} s on 2; 30 MB of weights" in text or f"{hours * 30:.1f} min on 2; 30 MB" in text


def test_with_gpus_the_plan_tells_both(params, timed):
    cohort, gpu = Cohort(100_000, 40_000, True), Gpu(40_000.0, 900.0, 8)
    lines = lines_of(params, cohort, gpu)
    assert plan.head(gpu).split()[-4:] == ["a", "GPU", "GPU", "hours"]
    assert plan.row(lines[0], gpu).split()[-3:] == ["8", *plan._time(lines[0].packed_hours).split()]
    packed = sum(line.packed_hours for line in lines)
    text = summary(params, lines, Crew(16, ("0", "1")), Stopwatch(16), gpu)
    assert f"{plan._time(packed / 2)} on 2 GPUs, several at a time" in text


def test_runs_that_are_needed_are_counted_once_with_their_strategy(root):
    grid = ["scale=tiny", "grid.tasks=[mortality]", "training.start=unimodal"]
    runs, earlier = asked(load(root / "params.yaml", [*grid, "grid.strategies=[late_fusion,mmtm,lstm]"]))
    cohorts = 2
    assert {pair: len(specs) for pair, specs in runs.items()} == {
        (name, "mortality"): cohorts for name in ("late_fusion", "mmtm", "lstm", "transformer", "resnet")
    }
    assert earlier == {"transformer": cohorts, "resnet": cohorts}
    runs, earlier = asked(load(root / "params.yaml", [*grid, "grid.strategies=[late_fusion,transformer,resnet]"]))
    assert not earlier
    assert sum(map(len, runs.values())) == 3 * cohorts


def test_teachers_of_other_sizes_are_runs_of_their_own(root, timed):
    changes = ["scale=tiny", "grid.tasks=[mortality]", "training.start=scratch", "strategies.mind.teachers=same"]
    names = "grid.strategies=[mind,transformer,resnet]"
    params = load(root / "params.yaml", [*changes, names, "strategies.mind.sizes=[0.5,1.0,2.0]"])
    runs, earlier = asked(params)
    assert earlier == {"transformer": 4, "resnet": 4}  # two sizes in two cohorts; that of 1 is the grid's
    assert len(runs["transformer", "mortality"]) == 6
    text = plan.counts(params, runs, earlier, Cohort(1000, 400, True))
    assert "3 strategies × 1 tasks, 17 runs" in text  # three of ablations
    assert "8 of them are not in the grid, and needed by its runs: resnet 4, transformer 4" in text


def test_ablations_are_counted_and_timed_with_knobs_and_cohort_of_their_own(root, timed):
    changes = ["scale=tiny", "grid.tasks=[mortality]", "training.start=scratch", "grid.strategies=[mind]"]
    params = load(root / "params.yaml", [*changes, "strategies.mind.sizes=[1.0]"])
    runs, earlier = asked(params)
    cohorts, ablations = 2, {"mind.untaught": 1.0, "mind.half": 0.5, "mind.half_untaught": 0.5}
    assert earlier == {"transformer": cohorts, "resnet": cohorts}  # those of ablations are the strategy's
    told = {name: [(spec.hyper["size"], spec.train_cohort) for spec in runs[name, "mortality"]] for name in ablations}
    assert told == {name: [(size, "matched")] for name, size in ablations.items()}
    text = plan.counts(params, runs, earlier, Cohort(1000, 400, True))
    assert "1 strategies × 1 tasks, 9 runs" in text
    assert "3 of them are of ablations, for strategies' own tables" in text
    lines = {line.strategy: line for line in lines_of(params, Cohort(1000, 400, True))}
    assert set(lines) == {"mind", "transformer", "resnet", *ablations}
    assert all(0 < lines[name].hours < lines["mind"].hours for name in ablations)
    assert plan.row(lines["mind.half"]).split()[:4] == ["mind.half", "mortality", "1", "1"]


def test_a_slow_batch_is_timed_once_and_tells_of_others_by_their_flops(params, monkeypatch):
    flops = {"transformer": 1.0, "resnet": 50.0, "late_fusion": 60.0}
    asked_for = []

    def batch(spec, px, share):
        asked_for.append(spec.strategy)
        return Cost(flops[spec.strategy] / 10, 0.5, 5.0)

    monkeypatch.setattr(timing, "time_batch", batch)
    monkeypatch.setattr(timing, "batch_flops", lambda spec, px, share: (flops[spec.strategy], 250_000))
    watch = Stopwatch(16)
    spec = asked(params)[0]["resnet", "mortality"][0]
    costs = [watch.cost(dataclasses.replace(spec, strategy=name), 0.4) for name in flops]
    assert asked_for == ["transformer", "resnet"]
    assert costs[2] == Cost(6.0, 0.6, 1.0, told=True)
    watch.cost(dataclasses.replace(spec, strategy="transformer"), 0.4)
    assert asked_for[2:] == ["transformer"]  # quicker than SLOW: timed all the same
    line = plan.Line("late_fusion", "mortality", 2, 2, 3.0, 5.0, told=True)
    assert "~3.0 h" in plan.row(line)
    assert "~: not timed, but by FLOPs from a batch of resnet, which took 5.0 s" in summary(
        params, [line], Crew(2), watch
    )


def test_flops_grow_with_the_share_of_stays_with_an_image(params):
    spec = asked(params)[0]["resnet", "mortality"][0]
    (none, parameters), (half, _), (every, _) = (timing.batch_flops(spec, 16, share) for share in (0.0, 0.5, 1.0))
    assert half == pytest.approx((none + every) / 2)
    assert every > none
    assert parameters > 0
    assert timing.batch_flops(asked(params)[0]["gbm", "mortality"][0], 16, 0.5) is None


def test_counts_are_printed_before_anything_is_timed(root, monkeypatch, capsys):
    def batch(spec, px, share):
        told = capsys.readouterr().out
        assert "2 strategies × 1 tasks, 4 runs" in told
        assert "in the run store: 0 runs; to be made: 4" in told
        raise KeyboardInterrupt

    monkeypatch.setattr(timing, "time_batch", batch)
    changes = ["scale=tiny", "grid.strategies=[lstm,resnet]", "grid.tasks=[mortality]"]
    given = [word for change in changes for word in ("-S", change)]
    command = ["plan", "--params", str(root / "params.yaml"), "--data", "nowhere", *given]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as end:
        plan.main()
    assert end.value.code == 130


def test_what_is_not_in_it_is_told(root, params):
    told = summary(params, [], Crew(2), Stopwatch(16)).splitlines()[-1]
    assert told.endswith("; not: the start of a cell, probes, questions, the page")
    tuned = load(root / "params.yaml", ["tuning.trials=8"])
    assert "not: 8 trials a strategy, the start of a cell" in summary(tuned, [], Crew(2), Stopwatch(16))
    assert "trials" not in summary(tuned, [], Crew(2), Stopwatch(16), tried=True)


def test_the_runs_are_those_of_the_settings_that_tune_chose_among_as_many_trials(root, tmp_path):
    chosen = {"lstm": {"hyper": {"lr": 0.0027}, "dropout": 0.2, "weight_decay": 0.03}}
    told = {"trials": 8, "code": {}, "tasks": {"mortality": chosen}}
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned/lstm.yaml").write_text(yaml.safe_dump(told))

    def first(*changes):
        params = load(root / "params.yaml", ["grid.strategies=[lstm]", *changes])
        return asked(params, plan.tuned(params, tmp_path))[0]["lstm", "mortality"][0].hyper

    assert first("grid.tasks=[mortality]", "tuning.trials=8") == {"lr": 0.0027}
    written = first("grid.tasks=[mortality]", "tuning.trials=4")  # it chose among others
    assert written != {"lr": 0.0027}
    assert first("grid.tasks=[mortality]", "tuning.trials=0") == written
    assert first("grid.tasks=[mortality,los]", "tuning.trials=8") == written  # it did not choose for all
    (tmp_path / "tuned/lstm.yaml").unlink()
    assert first("grid.tasks=[mortality]", "tuning.trials=8") == written


def test_the_gpu_with_the_least_memory_decides(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/pixels.npy").write_bytes(bytes(2_000_000))
    monkeypatch.setattr(plan, "free_mb", lambda names: dict(zip(names, (900.0, 700.0), strict=False)))
    assert plan.machine_gpu(Crew(16, ("0", "1"), cores=16), tmp_path) == Gpu(700.0, 2.0, 8)
    assert plan.machine_gpu(Crew(16), tmp_path) is None


@pytest.fixture
def embedded(root, tmp_path, monkeypatch):
    """A folder with the card of a tiny encoder, and params that ask for it."""
    monkeypatch.chdir(tmp_path)
    write_card(tmp_path)
    changes = ["scale=tiny", "grid.strategies=[late_fusion,lstm]", "grid.tasks=[mortality]", "training.start=scratch"]
    changes += ["embedding.encoders=[tiny]", "training.image=tiny", "embedding.device=cpu", "training.device=cpu"]
    return load(root / "params.yaml", changes), [word for change in changes for word in ("-S", change)]


def test_embedding_costs_its_images_by_all_processes_or_by_a_gpu_that_they_feed():
    price = Price("tiny", 3600, 16, (5, 6), False, seconds=0.2, reading=0.4, workers=4)
    assert price.hours == pytest.approx(0.2 / 4 + 0.4 / 4)
    assert price.megabytes == pytest.approx(3600 * 5 * 6 * 2 / 1e6)
    assert plan.told_price(price) == (
        "embed tiny: 3600 images at 16 px, once for all runs, 0.200 s each and 0.400 s for its JPEG: "
        "9.0 min on 4; 0.2 MB"
    )
    assert dataclasses.replace(price, gpu=True).hours == pytest.approx(0.2)  # the JPEGs are read meanwhile
    assert dataclasses.replace(price, gpu=True, reading=2.0).hours == pytest.approx(0.5)
    assert "a GPU fed by 4" in plan.told_price(dataclasses.replace(price, gpu=True))
    assert "its JPEG left out" in plan.told_price(dataclasses.replace(price, reading=None))
    assert plan.told_price(dataclasses.replace(price, made=True)) == "embed tiny: 3600 images are made, 0.2 MB"


def test_what_is_embedded_already_costs_nothing_and_nothing_is_loaded(embedded, tmp_path):
    params, _ = embedded
    (before,) = plan.embeddings(params, tmp_path, Cohort(100, 40, True))
    assert (before.made, before.images, before.shape) == (False, 40, (VECTORS, WIDTH))
    assert before.seconds > 0
    assert before.reading is None  # no JPEG is known
    facts = {"identity": identity(read_card("tiny")), "images": 40, "vectors": VECTORS, "width": WIDTH}
    write_json(facts, tmp_path / "embeddings/tiny/facts.json")
    (tmp_path / "program-0.pt").unlink()
    (after,) = plan.embeddings(params, tmp_path, Cohort(100, 40, True))
    assert (after.made, after.images, after.shape) == (True, 40, (VECTORS, WIDTH))
    with pytest.raises(InputError, match=r"^encoders/tiny\.yaml: file: .*program-0\.pt: not found"):
        list(plan.embeddings(params, tmp_path, Cohort(100, 41, True)))


def test_the_plan_prints_what_embedding_takes_and_times_runs_that_see_embeddings(embedded, root, monkeypatch, capsys):
    seen = []

    def batch(spec, what, share):
        seen.append((spec.strategy, what))
        return Cost(0.1, 0.01, 5.0)

    monkeypatch.setattr(timing, "time_batch", batch)
    command = ["plan", "--params", str(root / "params.yaml"), "--data", "nowhere", *embedded[1]]
    monkeypatch.setattr("sys.argv", command)
    plan.main()
    told = capsys.readouterr().out
    assert "embed tiny: 33 images at 16 px, once for all runs, 0.0" in told
    assert set(seen) == {("late_fusion", (2, WIDTH)), ("lstm", (2, WIDTH))}


def test_a_run_of_embeddings_is_timed_with_them_and_a_quarter_of_the_flops(embedded):
    params, _ = embedded
    spec = asked(params)[0]["late_fusion", "mortality"][0]
    cost = timing.time_batch(spec, (2, WIDTH), 1.0, batches=1)
    assert cost.batch > 0
    (pixels, _), (embeddings, _) = (timing.batch_flops(spec, seen, 1.0) for seen in (64, (2, WIDTH)))
    (record, _) = timing.batch_flops(spec, 64, 0.0)
    assert embeddings - record < 0.25 * (pixels - record)
