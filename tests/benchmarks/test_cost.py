"""The smallest pieces of tests/benchmarks/cost.py: one strategy measured, and the table."""

import csv
import platform

from pipeline.modelling.fitted import Fitted
from pipeline.modelling.registry import names, strategy_class
from tests.benchmarks.cost import FIELDS, MACHINE, OUT, comparison, machine, measure, table
from tests.support.made_up_data import fabricate


def test_a_strategy_is_measured(tmp_path):
    found = measure("transformer", fabricate(tmp_path, n=60), epochs=2)
    assert set(found) == {*FIELDS, "stays", "images", "flops_a_stay"}
    assert 3e5 < found["flops_a_stay"] < 3e7  # three times a forward pass, some 2 MFLOP
    assert found["seconds_per_epoch"] > 0
    assert found["peak_mb"] >= found["mb_before"] > 0
    assert 0 < found["images"] < found["stays"] < 60
    # at 1 to 1000 GFLOP a second
    assert found["flops_a_stay"] * found["stays"] / 1e12 < found["arithmetic_seconds"]
    assert found["arithmetic_seconds"] < found["flops_a_stay"] * found["stays"] / 1e9


def test_a_strategy_that_holds_something_of_every_stay_has_room_for_all(tmp_path):
    """Shapes are for 512 stays where nothing is said."""
    assert measure("qmf", fabricate(tmp_path, n=600), epochs=1)["stays"] > 0


def test_the_table_names_the_kind_of_machine_and_not_the_machine():
    kind = machine()
    assert platform.machine() in str(kind["processor"])
    assert platform.node() not in str(kind.values())
    row = {"seconds_per_epoch": 1.23456, "peak_mb": 812.6, "mb_before": 400.2, "stays": 500, "images": 250}
    row["arithmetic_seconds"] = 0.12345
    head, first, second = table({"b": row, "a": row}, {**kind, "processor": "A, B"}).splitlines()
    assert head.split(",") == ["strategy", *FIELDS, *MACHINE]
    assert first.startswith("a,1.23,0.123,813,400,A  B,")
    assert second.startswith("b,")
    assert len(first.split(",")) == len(head.split(","))


def test_the_committed_table_is_of_every_strategy_that_descends_with_its_limit():
    rows = list(csv.DictReader(OUT.read_text(encoding="utf-8").splitlines()))
    descending = [name for name in names() if not issubclass(strategy_class(name), Fitted)]
    assert [row["strategy"] for row in rows] == descending
    assert [row["strategy"] for row in rows if not row["arithmetic_seconds"]] == []


def test_rows_of_strategies_that_are_not_measured_stay():
    row = dict.fromkeys((*FIELDS, "stays", "images"), 1.0)
    kind = {"processor": "A", "cores": 2, "torch": "3"}
    written = table({"a": row, "c": row}, kind)
    head, *lines = table({"b": row, "c": {**row, "peak_mb": 2.0}}, {**kind, "processor": "B"}, written).splitlines()
    assert head == written.splitlines()[0]
    assert lines == ["a,1,1,1,1,A,2,3,1.0,1.0", "b,1,1,1,1,B,2,3,1.0,1.0", "c,1,1,2,1,B,2,3,1.0,1.0"]
    of_fewer_columns = "strategy,peak_mb,processor\na,7,A\n"
    assert table({}, kind, of_fewer_columns).splitlines() == [head, "a,,,7,,A,,,,"]


def test_a_comparison_is_of_the_time_a_stay_with_the_arithmetic_limit_beside_it():
    def found(seconds, stays):
        return {"seconds_per_epoch": seconds, "stays": stays, "flops_a_stay": 5e6}

    measured = {"b": (found(1.0, 100), found(0.5, 100)), "a": (found(2.0, 100), found(2.4, 200))}
    _, _, first, second, _, last = comparison(measured, 1e10).splitlines()
    assert first == "| a | 20.000 | 12.000 | 0.60 | 0.500 |"
    assert second == "| b | 10.000 | 5.000 | 0.50 | 0.500 |"
    assert last == "median ratio 0.55, largest 0.60"
