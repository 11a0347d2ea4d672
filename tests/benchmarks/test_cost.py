"""The smallest pieces of tests/benchmarks/cost.py: one strategy measured, and the table."""

import platform

from tests.benchmarks.cost import FIELDS, MACHINE, comparison, machine, measure, table
from tests.support.made_up_data import fabricate


def test_a_strategy_is_measured(tmp_path):
    found = measure("transformer", fabricate(tmp_path, n=60), epochs=2)
    assert set(found) == {*FIELDS, "stays", "images", "flops_a_stay"}
    assert 3e5 < found["flops_a_stay"] < 3e7  # three times a forward pass, some 2 MFLOP
    assert found["seconds_per_epoch"] > 0
    assert found["peak_mb"] >= found["mb_before"] > 0
    assert 0 < found["images"] < found["stays"] < 60


def test_the_table_names_the_kind_of_machine_and_not_the_machine():
    kind = machine()
    assert platform.machine() in str(kind["processor"])
    assert platform.node() not in str(kind.values())
    row = {"seconds_per_epoch": 1.23456, "peak_mb": 812.6, "mb_before": 400.2, "stays": 500, "images": 250}
    head, first, second = table({"b": row, "a": row}, {**kind, "processor": "A, B"}).splitlines()
    assert head.split(",") == ["strategy", *FIELDS, *MACHINE]
    assert first.startswith("a,1.23,813,400,A  B,")
    assert second.startswith("b,")
    assert len(first.split(",")) == len(head.split(","))


def test_a_comparison_is_of_the_time_a_stay_with_the_arithmetic_limit_beside_it():
    def found(seconds, stays):
        return {"seconds_per_epoch": seconds, "stays": stays, "flops_a_stay": 5e6}

    measured = {"b": (found(1.0, 100), found(0.5, 100)), "a": (found(2.0, 100), found(2.4, 200))}
    _, _, first, second, _, last = comparison(measured, 1e10).splitlines()
    assert first == "| a | 20.000 | 12.000 | 0.60 | 0.500 |"
    assert second == "| b | 10.000 | 5.000 | 0.50 | 0.500 |"
    assert last == "median ratio 0.55, largest 0.60"
