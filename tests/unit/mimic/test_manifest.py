"""The manifest: what is listed, which release is recognised, and one clear line for what is wrong."""

import dataclasses
import gzip
import hashlib
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.mimic import schema
from pipeline.mimic.manifest import build_manifest, find_table, recognise, summarise
from tests.support.raw_tree import CHARTEVENTS, DIAGNOSES, FILES, METADATA, PATIENTS, put, raw_tree


def fails(data, *words):
    """Building the manifest fails in one line that holds all `words`."""
    with pytest.raises(InputError) as caught:
        build_manifest(data)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_files_are_listed_with_size_checksum_header_and_rows(tmp_path):
    manifest = build_manifest(raw_tree(tmp_path, {"iv/hosp/services.csv.gz": "subject_id,x\n1,2\n"}))
    assert manifest["mimiciv"]["root"] == str(tmp_path / "iv")
    files = manifest["mimiciv"]["files"]
    assert list(files) == sorted(files)
    assert len(files) == 8
    patients = files["hosp/patients.csv.gz"]
    content = (tmp_path / "iv/hosp/patients.csv.gz").read_bytes()
    assert patients == {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "columns": ["subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod"],
        "rows": 2,
    }
    assert "rows" not in files["hosp/services.csv.gz"]  # not needed: hashed, not decompressed
    assert set(manifest["mimic_cxr"]["files"]) == {
        f"mimic-cxr-2.0.0-{n}.csv.gz" for n in ("metadata", "split", "chexpert", "negbio")
    }
    assert summarise(manifest)["mimiciv"]["rows"]["icu/chartevents"] == 9


def test_plain_csv_is_listed_too(tmp_path):
    data = raw_tree(
        tmp_path,
        {
            "iv/hosp/patients.csv.gz": None,
            "iv/hosp/patients.csv": PATIENTS.rstrip("\n"),
            **{name: None for name in FILES if name.startswith("cxr/")},
            "cxr/mimic-cxr-2.0.0-metadata.csv": METADATA,
        },
        cxr_tables="csv",
    )
    manifest = build_manifest(data)
    assert manifest["mimiciv"]["files"]["hosp/patients.csv"]["rows"] == 2  # the last line lacks its end
    assert list(manifest["mimic_cxr"]["files"]) == ["mimic-cxr-2.0.0-metadata.csv"]
    path, header = find_table(manifest, schema.TABLES["patients"])
    assert path == tmp_path / "iv/hosp/patients.csv"
    assert header[0] == "subject_id"
    assert find_table(manifest, schema.TABLES["cxr_findings"]) is None


def test_header_in_other_case_with_byte_order_mark_and_crlf_is_accepted(tmp_path):
    odd = "\ufeff" + PATIENTS.replace("subject_id", "SUBJECT_ID ").replace("\n", "\r\n")
    manifest = build_manifest(raw_tree(tmp_path, {"iv/hosp/patients.csv.gz": odd}))
    assert manifest["mimiciv"]["files"]["hosp/patients.csv.gz"]["columns"][0] == "SUBJECT_ID"


@pytest.mark.parametrize(
    ("database", "rows", "release", "kind"),
    [
        ("mimiciv", (299_712, 431_231, 73_181), "MIMIC-IV 2.2", "mimic"),
        ("mimiciv", (364_627, 546_028, 94_458), "MIMIC-IV 3.1", "mimic"),
        ("mimiciv", (100, 275, 140), "MIMIC-IV demo 2.2", "demo"),
        ("mimic_cxr", (377_110,), "MIMIC-CXR-JPG 2.0.0", "mimic"),
        ("mimic_cxr", (253,), "MIMIC-CXR-JPG stand-in for the demo", "demo"),
    ],
)
def test_releases_are_recognised_by_their_rows(tmp_path, database, rows, release, kind):
    names = {
        "mimiciv": ("hosp/patients.csv.gz", "hosp/admissions.csv", "icu/icustays.csv.gz"),
        "mimic_cxr": ("mimic-cxr-2.0.0-metadata.csv.gz",),
    }[database]
    files = {name: {"rows": count} for name, count in zip(names, rows, strict=True)}
    assert recognise(database, tmp_path, files, False) == (release, kind)
    files[names[0]]["rows"] += 1
    with pytest.raises(InputError, match="accept_unlisted_release"):
        recognise(database, tmp_path, files, False)
    assert recognise(database, tmp_path, files, True)[1] == "unlisted"


def test_cxr_2_1_0_is_told_by_the_file_that_it_adds(tmp_path):
    (tmp_path / schema.CXR_MARK_OF_2_1_0).write_text("study_id\n")
    files = {"mimic-cxr-2.0.0-metadata.csv.gz": {"rows": 377_110}}
    assert recognise("mimic_cxr", tmp_path, files, False) == ("MIMIC-CXR-JPG 2.1.0", "mimic")


def test_synthetic_is_recognised_by_its_mark_and_not_mixed(tmp_path):
    data = dataclasses.replace(raw_tree(tmp_path), accept_unlisted_release=False)
    (tmp_path / "iv/SYNTHETIC.json").write_text("{}")
    fails(data, "data.mimic_cxr", "not a release that is known")
    fails(dataclasses.replace(data, accept_unlisted_release=True), "data.mimiciv is synthetic hospital", "set both")
    (tmp_path / "cxr/SYNTHETIC.json").write_text('{"imitates": "MIMIC-CXR-JPG", "release": "2.0.0"}')
    manifest = build_manifest(data)
    assert {part["kind"] for part in manifest.values()} == {"synthetic"}
    assert manifest["mimiciv"]["release"] == "synthetic hospital"
    assert manifest["mimic_cxr"]["release"] == "synthetic hospital (MIMIC-CXR-JPG 2.0.0)"
    (tmp_path / "cxr/SYNTHETIC.json").write_text("{")
    fails(data, "SYNTHETIC.json", "not JSON")


def test_publishers_checksums_are_compared(tmp_path):
    """Verified is what was compared, all of it; the content of an unpacked table is nowhere in the list."""
    data = raw_tree(tmp_path, {"iv/hosp/omr.csv.gz": "a,b\n1,2\n"})
    needed = sorted(name.removeprefix("iv/") for name in FILES if name.startswith("iv/"))
    sums = {name: hashlib.sha256((tmp_path / "iv" / name).read_bytes()).hexdigest() for name in needed}

    def publish():
        text = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
        (tmp_path / "iv/SHA256SUMS.txt").write_text(text)

    publish()
    manifest = build_manifest(data)
    verified = {"result": "verified", "needed": 7, "compared": 7, "differing": [], "not_listed": []}
    assert manifest["mimiciv"]["checksums"] == verified | {"files_not_listed": 1}
    assert manifest["mimic_cxr"]["checksums"] == {"result": "absent"}
    assert summarise(manifest)["mimiciv"]["checksums"] == manifest["mimiciv"]["checksums"]

    (tmp_path / "iv/icu/chartevents.csv.gz").unlink()
    put(tmp_path / "iv/icu/chartevents.csv", CHARTEVENTS.replace("88,88", "89,89"))
    unpacked = {"result": "partial", "compared": 6, "not_listed": ["icu/chartevents.csv"], "files_not_listed": 2}
    assert build_manifest(data)["mimiciv"]["checksums"] == verified | unpacked

    sums["hosp/patients.csv.gz"] = "0" * 64
    publish()
    differ = {"result": "differ", "differing": ["hosp/patients.csv.gz"]}
    assert (
        build_manifest(data)["mimiciv"]["checksums"] == verified | unpacked | differ
    )  # an unlisted one is let through
    (tmp_path / "iv/SYNTHETIC.json").write_text("{}")
    (tmp_path / "cxr/SYNTHETIC.json").write_text("{}")
    fails(dataclasses.replace(data, accept_unlisted_release=False), "hosp/patients.csv.gz", "SHA-256")


def test_wrong_folders(tmp_path):
    data = raw_tree(tmp_path)
    fails(dataclasses.replace(data, mimiciv=str(tmp_path / "nowhere")), "data.mimiciv", "nowhere", "no such folder")
    fails(dataclasses.replace(data, mimic_cxr=str(tmp_path / "nowhere")), "data.mimic_cxr", "no such folder")
    fails(dataclasses.replace(data, mimiciv=str(tmp_path / "iv/hosp")), "data.mimiciv", "folder above")
    fails(dataclasses.replace(data, mimiciv=str(tmp_path)), "data.mimiciv", "no folder hosp/")
    fails(dataclasses.replace(data, mimiciv="x" * 300), "xxx: cannot be read: File name too long")
    (tmp_path / "old/core").mkdir(parents=True)
    (tmp_path / "old/hosp").mkdir()
    fails(dataclasses.replace(data, mimiciv=str(tmp_path / "old")), "core/", "1.x")
    (tmp_path / "old/icu").mkdir()  # as 1.0 has it
    fails(dataclasses.replace(data, mimiciv=str(tmp_path / "old")), "core/", "1.x")
    (tmp_path / "iv/core").mkdir()  # beside the tables of 2.0 and later it is somebody's own
    assert build_manifest(data)["mimiciv"]["files"]["hosp/patients.csv.gz"]["rows"] == 2


def test_missing_tables(tmp_path):
    fails(raw_tree(tmp_path / "a", {"iv/icu/chartevents.csv.gz": None}), "icu/chartevents", "not found")
    fails(raw_tree(tmp_path / "b", {"cxr/mimic-cxr-2.0.0-metadata.csv.gz": None}), "metadata.csv.gz", "not found")
    fails(raw_tree(tmp_path / "c", cxr_tables="csv"), "metadata.csv: not found", "set data.cxr_tables")
    fails(
        raw_tree(tmp_path / "d", {"iv/hosp/patients.csv": PATIENTS}), "both hosp/patients.csv.gz and hosp/patients.csv"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PATIENTS.replace("anchor_age", "age"), ["patients.csv.gz", "column anchor_age is missing"]),
        (PATIENTS.replace("dod", "gender"), ["column dod is missing"]),
        (PATIENTS.replace(",dod", ",dod,gender"), ["column gender stands twice"]),
        ("", ["has no header"]),
        ("\n1,2\n", ["has no header"]),
        (PATIENTS.splitlines()[0] + "\n", ["has no rows"]),
        (b"\xff\xfe,\xff\n", ["not UTF-8"]),
        ("x" * (1 << 21), ["first line is no header"]),
    ],
)
def test_bad_headers(tmp_path, content, words):
    fails(raw_tree(tmp_path, {"iv/hosp/patients.csv.gz": content}), "patients.csv.gz", *words)


def test_damaged_compression(tmp_path):
    data = raw_tree(tmp_path)
    path = tmp_path / "iv/icu/chartevents.csv.gz"
    good = gzip.compress((CHARTEVENTS * 200).encode())
    for cut in (1, 8, len(good) // 2):
        path.write_bytes(good[:-cut])
        fails(data, "chartevents.csv.gz", "truncated")
    path.write_bytes(CHARTEVENTS.encode())
    fails(data, "chartevents.csv.gz", "not gzip")
    path.write_bytes(good[:-6] + bytes([good[-6] ^ 1]) + good[-5:])  # the checksum in the trailer
    fails(data, "chartevents.csv.gz", "damaged")
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0x10
    path.write_bytes(flipped)
    fails(data, "chartevents.csv.gz", "damaged")


def test_several_gz_members_count_as_one_file(tmp_path):
    data = raw_tree(tmp_path)
    head, _, rest = DIAGNOSES.partition("\n")
    (tmp_path / "iv/hosp/diagnoses_icd.csv.gz").write_bytes(
        gzip.compress(f"{head}\n".encode()) + gzip.compress(rest.encode())
    )
    assert build_manifest(data)["mimiciv"]["files"]["hosp/diagnoses_icd.csv.gz"]["rows"] == 4


def test_a_file_that_changed_since_is_noticed(tmp_path):
    manifest = build_manifest(raw_tree(tmp_path))
    put(tmp_path / "iv/hosp/patients.csv.gz", PATIENTS + "3,F,40,2150,2011 - 2013,\n")
    with pytest.raises(InputError, match="run the stage manifest again"):
        find_table(manifest, schema.TABLES["patients"])


def test_a_damaged_file_that_nobody_needs_is_an_error_only_where_it_cannot_be_listed(tmp_path):
    data = raw_tree(tmp_path, {"iv/hosp/omr.csv.gz": "a,b\n1,2\n"})
    path: Path = tmp_path / "iv/hosp/omr.csv.gz"
    path.write_bytes(path.read_bytes()[:-4])
    assert build_manifest(data)["mimiciv"]["files"]["hosp/omr.csv.gz"]["columns"] == ["a", "b"]
