"""manifest + ingest + cohort + labels + series against one scan of the same files by DuckDB; memory; linear in rows.

The scan: every csv.gz file that ingest reads, one after the other, with the same number of threads, every column parsed
as text and its values that are not null counted. The stages run as processes of their own, their start included, DVC
left out. The manifest reads every file, on a thread a core, eight at most.
Both sides alternate, and each alternation is printed; the best of each counts.
FUSION_BENCHMARK_ROWS sets the rows of chartevents (20 million; 1.3 GB of memory, 200 MB of disk, five minutes).
"""

import gzip
import os
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
import yaml

from pipeline.mimic.schema import tables_of
from tests.benchmarks.large_release import FULL_SIZE, large_release

STAGES = ("manifest", "ingest", "cohort", "labels", "series")
ROWS = int(os.environ.get("FUSION_BENCHMARK_ROWS", 20_000_000))
THREADS = 2
# Python keeps compiled modules, as it does by default: without, each of the four starts compiles the project anew.
CACHED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
TIMES = 3


def scan(raw: Path) -> float:
    """Seconds that DuckDB takes to parse every column of every file as text."""
    sources = [raw / "iv" / source for source in tables_of("mimiciv")] + [
        raw / "cxr" / source for source in tables_of("mimic_cxr")
    ]
    start = time.perf_counter()
    with duckdb.connect() as connection:
        connection.execute(f"set threads = {THREADS}")
        for path in (source.with_name(f"{source.name}.csv.gz") for source in sources):
            if not path.is_file():
                continue
            with gzip.open(path, "rt") as file:
                header = file.readline().strip().split(",")
            columns = ", ".join(f"'{name}': 'VARCHAR'" for name in header)
            counts = ", ".join(f'count("{name}")' for name in header)
            connection.execute(
                f"select {counts} from read_csv('{path}', columns = {{{columns}}}, auto_detect = false, header = true,"
                " delim = ',', quote = '\"', escape = '\"', nullstr = '')"
            ).fetchall()
    return time.perf_counter() - start


def run_stages(root: Path, folder: Path) -> tuple[dict[str, float], int]:
    """Seconds per stage, and the largest resident memory of any (none of them has worker processes), in bytes."""
    seconds, peak = {}, 0
    for stage in STAGES:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", f"stages.{stage}"],
            cwd=folder,
            env={
                **CACHED,
                "PYTHONPATH": str(root),
            },
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds[stage] = time.perf_counter() - start
        assert process.returncode == 0, stage
        peak = max(peak, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
    return seconds, peak


def prepare(root: Path, folder: Path, rows: int) -> Path:
    """A release of `rows` chart rows below `folder`/raw, and a project folder that points to it."""
    data = large_release(folder / "raw", rows)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["data"].update(mimiciv=data.mimiciv, mimic_cxr=data.mimic_cxr, accept_unlisted_release=True)
    params["ingest"]["threads"] = THREADS
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def ratios(scanned: float, seconds: dict[str, float]) -> tuple[float, float]:
    """The stages' seconds against the scan's, with and without the manifest."""
    every = sum(seconds.values())
    return every / scanned, (every - seconds["manifest"]) / scanned


def line(rows: int, scanned: float, seconds: dict[str, float]) -> str:
    """What one alternation took."""
    ratio, without = ratios(scanned, seconds)
    stages = ", ".join(f"{stage} {each:.1f} s" for stage, each in seconds.items())
    return f"{rows:,} rows: scan {scanned:.1f} s, {stages}; {ratio:.2f} × the scan, {without:.2f} without the manifest"


@pytest.mark.benchmark
def test_the_extraction_takes_at_most_2_2_scans_in_bounded_memory_and_time_linear_in_rows(root, tmp_path):
    per_row = {}
    for share in (4, 2, 1):
        rows = ROWS // share
        folder = prepare(root, tmp_path / str(rows), rows)
        scans, runs = [], []
        for _ in range(TIMES):
            scans.append(scan(folder / "raw"))
            runs.append(run_stages(root, folder))
            print(line(rows, scans[-1], runs[-1][0]))
        best = {stage: min(seconds[stage] for seconds, _ in runs) for stage in STAGES}
        peak, (ratio, without) = max(peak for _, peak in runs), ratios(min(scans), best)
        per_row[rows] = sum(best.values()) / rows
        print(f"best: {line(rows, min(scans), best)}, {peak / 2**30:.2f} GiB")
        assert peak < 4e9
    print(f"{FULL_SIZE:,} rows: {FULL_SIZE * per_row[ROWS] / 3600:.2f} h")
    assert per_row[ROWS] < 1.15 * per_row[ROWS // 4]
    assert ratio <= 2.2
    assert without <= 2.0
