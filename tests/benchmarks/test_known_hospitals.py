"""tests/benchmarks/known_hospitals.py: the params of a hospital, and the shares of verdicts."""

import polars as pl
import yaml

from pipeline.params import load
from pipeline.questions.known.known import SCHEMA, judgement
from pipeline.questions.known.rules import RULES, counted_rules
from tests.benchmarks.known_hospitals import MARGIN, STRATEGIES, changed, commands, markdown, shares


def rows(verdicts):
    """(hospital, attainable, verdict) as known.csv has them."""
    blank = dict.fromkeys(SCHEMA)
    return pl.DataFrame(
        [
            {
                **blank,
                "hospital": hospital,
                "cohort": "base",
                "attainable": attainable,
                "found": attainable / 2,
                "verdict": verdict,
                "judgement": judgement(verdict, False, attainable, MARGIN),
            }
            for hospital, attainable, verdict in verdicts
        ],
        schema={"hospital": pl.Int64, **SCHEMA},
    )


def test_the_params_are_legal_and_differ_in_the_seed(root, tmp_path):
    found = []
    for seed in (1, 2):
        params = changed(yaml.safe_load((root / "params.yaml").read_text()), seed)
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        found.append(load(tmp_path / "params.yaml"))
    assert found[0].synthetic != found[1].synthetic
    assert found[0].grid == found[1].grid
    assert found[0].grid.strategies == STRATEGIES
    assert found[0].verdicts.margins.auroc == MARGIN
    assert found[0].strategies["umse"]["span"] == 4


def test_what_a_stage_reads_was_written_by_an_earlier_one(root):
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    # Cells write below the first ones; common.json is there for DVC alone, and no encoder has a card.
    written = ["data/raw", "data/runs", "data/probes", "data/tuned", "data/common.json", "data/embeddings/cards.json"]
    for name in (command.split()[0] for command in commands()):
        stage = stages[name].get("do", stages[name])
        reads = [path for path in stage["deps"] if path.startswith(("data/", "reports/")) and "$" not in path]
        lacking = [path for path in reads if not any(out.startswith(path) or path.startswith(out) for out in written)]
        assert (name, lacking) == (name, [])
        written += [path for out in stage.get("outs", []) for path in (out if isinstance(out, dict) else [out])]


def test_shares_are_by_what_was_attainable():
    table = rows(
        [
            (1, 0.0, "gains"),
            (1, 0.0, "no relevant gain"),
            (2, 0.01, "undetermined"),
            (2, 0.02, "gains"),
            (2, 0.1, "gains"),
        ]
    )
    assert [row[:-1] for row in shares(table)] == [
        ("base", "up to 0.01", 3, "33%", "33%", "33%", "33%"),
        ("base", "0.01 to 0.03", 1, "100%", "100%", "0%", "0%"),
        ("base", "above 0.06", 1, "100%", "100%", "0%", "0%"),
    ]
    said = {"attainable": 0.0, "margin": MARGIN, "says": "gain", "cohort": "base"}
    each = counted_rules([said | {"rule": rule} for rule in RULES])
    text = markdown(table, pl.concat([each, each]).group_by("cohort", "rule", maintain_order=True).sum())
    assert "known_hospitals 1 2`: 2 synthetic hospitals\n(version " in text
    assert "| base | paired t-test over folds (p &lt; 0.05) | 2 | 0 | 0 | 2 | 0 | 0 | 0 |" in text
