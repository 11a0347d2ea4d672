"""Packing radiographs: what is packed, in which order, whoever decodes; and how a pool ends."""

import hashlib
import os
import signal
import subprocess
import sys

import numpy as np
import polars as pl
import psutil
import pytest
from PIL import Image

from pipeline.closure import ROOT
from pipeline.errors import InputError
from pipeline.mimic import images
from pipeline.mimic.checksums import LIST
from pipeline.mimic.images import disclosed, write_images
from pipeline.mimic.jpegs import image_table
from pipeline.mimic.pixels import pack
from pipeline.params import Images
from tests.support.processes import alive, children, wait_until
from tests.support.radiographs import _noise, _truncated, jpeg, radiograph


def settings(skip=(), workers=1, checksums=True, follow_links=False, per_stay=1):
    return Images(skip=skip, workers=workers, checksums=checksums, follow_links=follow_links, per_stay=per_stay)


STRICT, SKIP = settings(), settings(("damaged",))


def release(folder, count, shapes=((64, 80), (80, 64), (70, 70))):
    """A MIMIC-CXR-JPG folder with an image a stay, and its tables; second ranks of cxr.parquet have no file."""
    rows, metadata = [], []
    for i in range(count):
        subject, study, dicom = 10_000_000 + i, 50_000_000 + i, f"{i:08x}-aaaa"
        path = folder / "files" / f"p{str(subject)[:2]}" / f"p{subject}" / f"s{study}" / f"{dicom}.jpg"
        width, height = shapes[i % len(shapes)]
        jpeg(path, radiograph(width, height, seed=i))
        metadata.append({"dicom_id": dicom, "rows": height, "columns": width})
        base = {"stay_id": 30_000_000 + i, "study_id": study, "subject_id": subject, "hours_from_intime": i / 10}
        rows.append({**base, "rank": 1, "dicom_id": dicom, "view": "AP"})
        rows.append({**base, "rank": 2, "dicom_id": "not-there", "view": "PA"})
    cxr = pl.DataFrame(rows)
    cxr.write_parquet(folder / "cxr.parquet")
    pl.DataFrame(metadata).write_parquet(folder / "cxr_metadata.parquet")
    return cxr


def name_of(folder, row):
    tables = (pl.read_parquet(folder / name) for name in ("cxr.parquet", "cxr_metadata.parquet"))
    return image_table(*tables)["path"][row]


def path_of(folder, row):
    return folder / name_of(folder, row)


def packed_alone(path, px=16):
    return pack(path.read_bytes(), px, str(path)).pixels


def run(folder, how=STRICT, px=16, out="out"):
    report = write_images(folder / "cxr.parquet", folder / "cxr_metadata.parquet", folder, px, how, folder / out)
    return np.load(folder / out / "pixels.npy", mmap_mode="r"), pl.read_parquet(folder / out / "index.parquet"), report


def test_rows_are_the_rank_1_images_in_the_order_of_stays(tmp_path):
    cxr = release(tmp_path, 7)
    cxr.sample(fraction=1, shuffle=True, seed=5).write_parquet(tmp_path / "cxr.parquet")
    packed, index, report = run(tmp_path)
    first = cxr.filter(pl.col("rank") == 1)
    assert packed.shape == (7, 16, 16)
    assert packed.dtype == np.uint8
    assert index["row"].to_list() == list(range(7))
    assert index.select("stay_id", "dicom_id", "view").equals(first.select("stay_id", "dicom_id", "view"))
    assert index["width"].to_list()[:3] == [64, 80, 70]
    assert index["height"].to_list()[:3] == [80, 64, 70]
    for row, digest in enumerate(index["sha256"]):
        alone = packed_alone(path_of(tmp_path, row))
        assert (packed[row] == alone).all()
        assert digest == hashlib.sha256(alone.tobytes()).hexdigest()
    assert report["images"] == report["distinct_images"] == 7
    assert report["left_out"] == {"images": 0, "reasons": {}}
    assert report["jpeg"]["height"] == {"min": 64, "median": 70.0, "max": 80}


def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "IMAGES_PER_WORKER", 8)
    release(tmp_path, 40)
    run(tmp_path, settings(workers=1), out="one")
    run(tmp_path, settings(workers=3), out="three")
    for name in ("pixels.npy", "index.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "three").iterdir()) == ["index.parquet", "pixels.npy"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_file_stops_the_stage_and_leaves_nothing(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(images, "IMAGES_PER_WORKER", 8)
    release(tmp_path, 24)
    _truncated(path_of(tmp_path, 9))
    _noise(path_of(tmp_path, 17))
    with pytest.raises(InputError, match=r"00000009-aaaa\.jpg: damaged: .*images\.skip: \[damaged\]"):
        run(tmp_path, settings(workers=workers))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_file_is_left_out_and_counted(tmp_path):
    release(tmp_path, 6)
    _truncated(path_of(tmp_path, 1))
    path_of(tmp_path, 4).unlink()
    packed, index, report = run(tmp_path, SKIP)
    kept = [0, 2, 3, 5]
    assert index["row"].to_list() == [0, 1, 2, 3]
    assert index["stay_id"].to_list() == [30_000_000 + i for i in kept]
    for row, i in enumerate(kept):
        assert (packed[row] == packed_alone(path_of(tmp_path, i))).all()
    assert report["left_out"] == {"images": 2, "reasons": {"damaged": 1, "not found": 1}}
    assert "aaaa" not in str(report)


COUNTS = {
    "left_out": {"images": 0, "reasons": {}},
    "checksums": {"list": "absent"},
    "oddities": {"images_of_one_grey": 2},
}


@pytest.mark.parametrize(
    ("stays", "images", "distinct", "modes", "shown"),
    [
        (90, 40, 40, {"L": 40}, {"images": 40, "distinct_images": 40, "colour_modes": {"L": 40}}),
        (90, 40, 38, {"L": 37, "CMYK": 3}, {"distinct_images": 38, "colour_modes": {"L": "hidden", "CMYK": "<10"}}),
        (90, 5, 5, {"L": 5}, {"images": "<10", "distinct_images": "<10", "colour_modes": {"L": "<10"}}),
        # as many as the cohort has stays, but for three: so few without an image are not told
        (43, 40, 40, {"L": 40}, {"images": "hidden", "distinct_images": "hidden", "colour_modes": {"L": "hidden"}}),
        (43, 40, 40, {"L": 25, "RGB": 15}, {"images": "hidden", "colour_modes": {"L": "hidden", "RGB": 15}}),
        (40, 40, 40, {"L": 40}, {"images": 40}),
        (90, 0, 0, {}, {"images": 0, "distinct_images": 0, "colour_modes": {}}),
    ],
)
def test_an_image_in_use_is_a_stay_and_few_are_not_told(stays, images, distinct, modes, shown):
    found = disclosed(
        COUNTS | {"images": images, "stays": images, "distinct_images": distinct, "colour_modes": modes}, stays
    )
    assert {key: found[key] for key in shown} == shown
    assert found["left_out"] == COUNTS["left_out"]
    assert found["oddities"] == {"images_of_one_grey": 2}  # what is wrong with files


def test_what_is_wrong_with_images_is_exact_unless_it_tells_how_few_there_are():
    counts = COUNTS | {"distinct_images": 37, "colour_modes": {"L": 37}, "images": 37, "stays": 37}
    left = {"left_out": {"images": 3, "reasons": {"not found": 2, "damaged": 1}}}
    compared = {"checksums": {"list": LIST, "equal": 35, "differ": 1, "not_listed": 2}}
    found = disclosed(counts | left | compared, 90)
    assert found["images"] == 37
    assert found["left_out"] == left["left_out"]
    assert found["checksums"] == {"list": LIST, "equal": "hidden", "differ": 1, "not_listed": "<10"}
    # cohort.json tells 12 stays with an image: 8 in use would follow from 4 left out
    few = counts | {"images": 8, "stays": 8, "distinct_images": 8, "colour_modes": {"L": 8}}
    found = disclosed(few | {"left_out": {"images": 4, "reasons": {"not found": 4}}}, 90)
    assert found["images"] == "<10"
    assert found["left_out"] == {"images": "<10", "reasons": {"not found": "<10"}}


def test_how_few_stays_have_a_second_image_is_not_told():
    counts = COUNTS | {"distinct_images": 45, "colour_modes": {"L": 45}, "images": 45}
    assert disclosed(counts | {"stays": 30}, 90)["images"] == 45
    assert disclosed(counts | {"stays": 40}, 90)["images"] == "hidden"
    assert "stays" not in disclosed(counts | {"stays": 30}, 90)


def test_the_latest_images_of_a_stay_are_packed_in_order_and_of_a_lost_one_the_next_is_the_latest(tmp_path):
    cxr = release(tmp_path, 6)
    older = cxr.filter(pl.col("rank") == 1, pl.col("stay_id") < 30_000_003).with_columns(
        rank=pl.lit(2, pl.Int64), stay_id=pl.col("stay_id") + 3, hours_from_intime=pl.lit(0.05)
    )
    third = older.with_columns(rank=pl.lit(3, pl.Int64))
    pl.concat([cxr.filter(pl.col("rank") == 1), older, third]).write_parquet(tmp_path / "cxr.parquet")
    for per_stay, ranks in ((1, [1] * 6), (2, [1, 1, 1, 1, 2, 1, 2, 1, 2]), (4, [1, 1, 1, *[1, 2, 3] * 3])):
        packed, index, report = run(tmp_path, settings(per_stay=per_stay), out=f"of_{per_stay}")
        assert index["rank"].to_list() == ranks
        assert index["row"].to_list() == list(range(len(ranks)))
        assert (report["images"], report["stays"], len(packed)) == (len(ranks), 6, len(ranks))
    assert index.filter(pl.col("stay_id") == 30_000_004)["dicom_id"].to_list() == [
        "00000004-aaaa",
        *["00000001-aaaa"] * 2,
    ]
    _noise(path_of(tmp_path, 5))
    _, index, _ = run(tmp_path, settings(("damaged",), per_stay=2), out="without")
    left = index.filter(pl.col("stay_id") == 30_000_005)
    assert left.select("rank", "dicom_id").rows() == [(1, "00000002-aaaa")]


def test_no_image_at_all_is_legal(tmp_path):
    release(tmp_path, 2)
    pl.read_parquet(tmp_path / "cxr.parquet").clear().write_parquet(tmp_path / "cxr.parquet")
    packed, index, report = run(tmp_path)
    assert packed.shape == (0, 16, 16)
    assert index.height == report["images"] == 0


def test_an_absent_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cxr\.parquet: not found"):
        run(tmp_path)


def stored(folder, store):
    """The same release, each JPEG of which is a link into a store, as git-annex and DVC make them."""
    store.mkdir()
    for path in sorted((folder / "files").rglob("*.jpg")):
        path.rename(store / path.name)
        path.symlink_to(store / path.name)


def test_links_into_a_store_are_refused_with_advice_that_helps(tmp_path):
    folder = tmp_path / "release"
    release(folder, 3)
    expected, _, _ = run(folder, out="before")
    stored(folder, tmp_path / "store")
    with pytest.raises(InputError, match=r"leads out of the folder files/ \(images\.follow_links: true uses") as caught:
        run(folder)
    assert "images.skip: [damaged]" in str(caught.value)
    packed, _, _ = run(folder, settings(follow_links=True))
    assert (packed == expected).all()


@pytest.mark.parametrize("lost", [2, 3])
def test_links_that_skip_would_lose_are_an_error_that_says_so(tmp_path, lost):
    folder = tmp_path / "release"
    release(folder, 3)
    stored(folder, tmp_path / "store")
    for row in range(lost, 3):
        path = path_of(folder, row)
        path.unlink()
        (tmp_path / "store" / path.name).rename(path)
    with pytest.raises(InputError) as caught:
        run(folder, SKIP)
    assert str(caught.value) == (
        f"{folder / 'files'}: {3 - lost} of 3 linked images can be used, fewer than half; left out: "
        f"{lost} leads out of the folder files/ - images.follow_links: true uses what it leads to"
    )
    assert list((folder / "out").iterdir()) == []


def test_half_of_the_images_are_enough_and_the_reasons_of_fewer_come_commonest_first(tmp_path):
    release(tmp_path, 6)
    path_of(tmp_path, 0).unlink()
    path_of(tmp_path, 1).unlink()
    _truncated(path_of(tmp_path, 2))
    assert run(tmp_path, SKIP)[2]["images"] == 3
    _noise(path_of(tmp_path, 3))
    words = "2 of 6 linked images can be used, fewer than half; left out: 2 not found; 1 damaged; 1 not a JPEG"
    with pytest.raises(InputError, match=words):
        run(tmp_path, SKIP, out="again")


def listed(folder, rows, change=str):
    """SHA256SUMS.txt with the images of `rows` and a file that is no image."""
    digests = {name_of(folder, row): hashlib.sha256(path_of(folder, row).read_bytes()).hexdigest() for row in rows}
    lines = [f"{change(digest)}  {name}" for name, digest in digests.items()]
    (folder / LIST).write_text("\n".join([f"{'0' * 64}  README.md", "no line of a list", *lines]) + "\n")


def test_each_image_is_compared_with_its_published_checksum(tmp_path):
    release(tmp_path, 5)
    listed(tmp_path, [0, 1, 2, 3], change=str.upper)
    assert run(tmp_path)[2]["checksums"] == {"list": "SHA256SUMS.txt", "equal": 4, "differ": 0, "not_listed": 1}
    jpeg(path_of(tmp_path, 2), radiograph(70, 70, seed=99))  # a whole JPEG, but not the one that was published
    with pytest.raises(InputError) as caught:
        run(tmp_path, out="error")
    assert str(caught.value) == (
        f"{path_of(tmp_path, 2)}: damaged or changed: its SHA-256 is not that of SHA256SUMS.txt "
        "(images.checksums: false does not compare; images.skip: [damaged] leaves such images out)"
    )
    _, index, report = run(tmp_path, SKIP, out="skip")
    assert index["stay_id"].to_list() == [30_000_000 + i for i in (0, 1, 3, 4)]
    assert report["checksums"] == {"list": "SHA256SUMS.txt", "equal": 3, "differ": 1, "not_listed": 1}
    assert report["left_out"]["images"] == 1
    _, index, report = run(tmp_path, settings(checksums=False), out="off")
    assert index.height == 5
    assert report["checksums"] == {"list": "not compared"}


def test_where_there_is_no_list_nothing_is_compared_and_the_report_says_so(tmp_path):
    release(tmp_path, 2)
    assert run(tmp_path)[2]["checksums"] == {"list": "absent"}


def test_odd_images_are_counted(tmp_path):
    release(tmp_path, 6)
    assert set(run(tmp_path)[2]["oddities"].values()) == {0}
    metadata = pl.read_parquet(tmp_path / "cxr_metadata.parquet")
    swapped = pl.col("dicom_id") == "00000000-aaaa"
    unknown = pl.col("dicom_id") == "00000001-aaaa"
    metadata.with_columns(
        rows=pl.when(swapped).then("columns").when(unknown).then(None).otherwise("rows"),
        columns=pl.when(swapped).then("rows").otherwise("columns"),
    ).write_parquet(tmp_path / "cxr_metadata.parquet")
    jpeg(path_of(tmp_path, 2), Image.new("L", (70, 70), 7))
    exif = Image.Exif()
    exif[0x0112] = 3
    jpeg(path_of(tmp_path, 5), radiograph(70, 70), exif=exif)
    jpeg(path_of(tmp_path, 4), radiograph(80, 65))
    report = run(tmp_path, out="odd")[2]
    assert report["images"] == 6
    assert report["oddities"] == {
        "images_of_another_size_than_the_metadata_say": 2,  # of the second one nothing is known
        "images_of_one_grey": 1,
        "images_that_exif_would_turn": 1,
    }


def test_files_may_be_a_link_itself(tmp_path):
    release(tmp_path / "disk", 2)
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "files").symlink_to(tmp_path / "disk" / "files")
    for name in ("cxr.parquet", "cxr_metadata.parquet"):
        (tmp_path / "disk" / name).rename(tmp_path / "release" / name)
    assert run(tmp_path / "release")[0].shape[0] == 2


def test_a_full_disk_is_an_error_before_any_work(tmp_path, monkeypatch):
    release(tmp_path, 2)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"pixels\.npy: cannot be written: No space left on device"):
        run(tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


SCRIPT = """
import sys
import time
from pathlib import Path
from pipeline.mimic import images
from pipeline.params import Images

def slowly(*of, pack=images.pack):  # in the workers, too, which import this file
    time.sleep(0.1)
    return pack(*of)

images.pack = slowly

def main():
    images.IMAGES_PER_WORKER = 8
    folder = Path(sys.argv[1])
    settings = Images(skip=(), checksums=True, follow_links=False, workers=2, per_stay=1)
    images.write_images(folder / "cxr.parquet", folder / "cxr_metadata.parquet", folder, 8, settings, folder / "out")

if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
"""


def _started(folder):
    """The stage at work in a process group of its own, and the processes of its pool."""
    release(folder, 600, shapes=((8, 8),))
    (folder / "stage.py").write_text(SCRIPT, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(folder / "stage.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if not wait_until(lambda: len(children(process.pid)) >= 3):  # two workers and multiprocessing's tracker
        process.kill()
        raise AssertionError("the pool did not start")
    return process, children(process.pid)


def test_ctrl_c_ends_the_pool_quietly(tmp_path):
    process, pool = _started(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert wait_until(lambda: not alive(pool))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_killed_parent_leaves_no_worker(tmp_path):
    process, pool = _started(tmp_path)
    process.kill()
    process.communicate(timeout=20)
    assert wait_until(lambda: not alive(pool))


def test_a_killed_worker_is_an_error_not_a_wait(tmp_path):
    process, pool = _started(tmp_path)
    worker = next(pid for pid in pool if "spawn_main" in " ".join(psutil.Process(pid).cmdline()))
    os.kill(worker, signal.SIGKILL)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "decoding processes was killed" in stderr


@pytest.mark.real_data
def test_images_of_the_stand_in_release(demo_data, tmp_path):
    """All 253 images: sizes as the metadata state them, sane brightness, no two alike."""
    root = demo_data / "mimic-cxr-jpg-demo"
    metadata = pl.read_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz").sort("dicom_id").with_row_index("stay_id")
    metadata.select(
        "stay_id",
        "dicom_id",
        "study_id",
        "subject_id",
        rank=pl.lit(1),
        hours_from_intime=pl.lit(0.0),
        view="ViewPosition",
    ).write_parquet(tmp_path / "cxr.parquet")
    metadata.select("dicom_id", rows="Rows", columns="Columns").write_parquet(tmp_path / "cxr_metadata.parquet")
    report = write_images(
        tmp_path / "cxr.parquet", tmp_path / "cxr_metadata.parquet", root, 64, STRICT, tmp_path / "out"
    )
    index = pl.read_parquet(tmp_path / "out" / "index.parquet")
    packed = np.load(tmp_path / "out" / "pixels.npy")
    assert packed.shape == (253, 64, 64)
    assert report["distinct_images"] == 253
    assert report["colour_modes"] == {"L": 253}
    assert report["checksums"] == {"list": "SHA256SUMS.txt", "equal": 253, "differ": 0, "not_listed": 0}
    assert set(report["oddities"].values()) == {0}
    assert index["height"].to_list() == metadata["Rows"].to_list()
    assert index["width"].to_list() == metadata["Columns"].to_list()
    assert (packed.mean(axis=(1, 2)) > 30).all()
    assert (packed.std(axis=(1, 2)) > 10).all()
    for row, (height, width) in enumerate(index.select("height", "width").iter_rows()):
        if height > width:
            margin = (64 - round(width * 64 / height)) // 2
            assert not packed[row][:, :margin].any()
            assert packed[row][:, margin + 1 : 63 - margin].any()
