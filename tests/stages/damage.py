"""Bad input, case by case: what befalls a folder before a stage sees it. docs/bad-input.md says what follows.

A damage changes files below a folder that holds iv/, cxr/ and params.yaml (of `hospital` in test_bad_input.py).
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import yaml
from PIL import ExifTags, Image

from pipeline.strict import read_yaml
from tests.support.raw_tree import put

CHART, OUTPUT, STAYS = "iv/icu/chartevents.csv.gz", "iv/icu/outputevents.csv.gz", "iv/icu/icustays.csv.gz"
PATIENTS, ADMISSIONS, DIAGNOSES = (f"iv/hosp/{name}.csv.gz" for name in ("patients", "admissions", "diagnoses_icd"))
LABS = "iv/hosp/labevents.csv.gz"
METADATA, FINDINGS = (f"cxr/mimic-cxr-2.0.0-{name}.csv.gz" for name in ("metadata", "chexpert"))
JPEG = "cxr/files/p1/p1/s51/b-1.jpg"
SUMS = "cxr/SHA256SUMS.txt"
ROW = "1,11,31,7,2150-01-01 13:00:00,2150-01-01 13:05:00,220045,88,88,bpm,0"  # one that every test of rows may bend
RESULT = "9,1,11,9,50912,,2150-01-01 18:00:00,2150-01-01 18:30:00,1.3,1.3,mg/dL,0.5,1.2,,STAT,"

Damage = Callable[[Path], None]


def content(folder: Path, file: str) -> bytes:
    """What a file holds, decompressed."""
    raw = (folder / file).read_bytes()
    return gzip.decompress(raw) if file.endswith(".gz") else raw


def swap(file: str, old: str | bytes, new: str | bytes, count: int = -1) -> Damage:
    """Another text in the place of one that must be there."""
    was, becomes = (text.encode() if isinstance(text, str) else text for text in (old, new))

    def apply(folder: Path) -> None:
        text = content(folder, file)
        assert was in text, f"{file} holds no {old!r}"
        put(folder / file, text.replace(was, becomes, count))

    return apply


def add(file: str, text: str) -> Damage:
    """More rows at the end."""
    return lambda folder: put(folder / file, content(folder, file) + text.encode())


def write(file: str, text: str | bytes) -> Damage:
    """Another content, compressed where the name says so."""
    return lambda folder: put(folder / file, text)


def raw(file: str, change: Callable[[bytes], bytes]) -> Damage:
    """Other bytes on the disk."""
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes())) and None


def text(file: str, change: Callable[[str], str]) -> Damage:
    """Another text, made of the one that is there."""
    return lambda folder: put(folder / file, change(content(folder, file).decode()))


def unpacked(file: str) -> Damage:
    """The same text without compression, under a name that says so."""

    def apply(folder: Path) -> None:
        put(folder / file.removesuffix(".gz"), content(folder, file))
        (folder / file).unlink()

    return apply


def remove(file: str) -> Damage:
    """No such file or folder."""
    return lambda f: shutil.rmtree(f / file) if (f / file).is_dir() else (f / file).unlink()


def move(old: str, new: str) -> Damage:
    """Another name."""
    return lambda folder: shutil.move(folder / old, folder / new) and None


def link(folder: str, to: str = "disk") -> Damage:
    """The folder lies elsewhere, where a link leads to; one that is not there is made."""

    def apply(where: Path) -> None:
        (where / folder).mkdir(parents=True, exist_ok=True)
        shutil.move(where / folder, where / to)
        (where / folder).symlink_to(where / to)

    return apply


def published(*, without: tuple[str, ...] = ()) -> Damage:
    """SHA256SUMS.txt of MIMIC-IV as it is, as the publisher lays it there, without the lines of some files."""

    def apply(folder: Path) -> None:
        names = [path.relative_to(folder / "iv").as_posix() for path in sorted((folder / "iv").rglob("*.csv*"))]
        sums = {name: sha256((folder / "iv" / name).read_bytes()).hexdigest() for name in names if name not in without}
        (folder / "iv/SHA256SUMS.txt").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))

    return apply


def params(key: str, value: object) -> Damage:
    """Another value in params.yaml."""

    def apply(folder: Path) -> None:
        every = read_yaml(folder / "params.yaml")
        *above, last = key.split(".")
        block = every
        for name in above:
            block = block[name]
        block[last] = value
        (folder / "params.yaml").write_text(yaml.safe_dump(every, sort_keys=False))

    return apply


def chain(*damages: Damage) -> Damage:
    """One after the other."""

    def apply(folder: Path) -> None:
        for damage in damages:
            damage(folder)

    return apply


def rewritten(file: str, change: Callable[[list[str]], list[str]]) -> Damage:
    """Every row, the header first, as a list of fields changed alike; of files without quotes."""

    def apply(folder: Path) -> None:
        lines = content(folder, file).decode().splitlines()
        put(folder / file, "".join(",".join(change(line.split(","))) + "\n" for line in lines))

    return apply


def members(file: str, *cuts: float, empty: bool = False) -> Damage:
    """Several gz members, cut at these shares of the text, in mid-row; `empty`: one without content between them."""

    def apply(folder: Path) -> None:
        whole = content(folder, file)
        ends = [0, *(int(cut * len(whole)) for cut in cuts), len(whole)]
        parts = [gzip.compress(whole[low:high]) for low, high in itertools.pairwise(ends)]
        (folder / file).write_bytes((gzip.compress(b"") if empty else b"").join(parts))

    return apply


def picture(file: str, image: Image.Image, kind: str, **options: object) -> Damage:
    """Another image under that name."""
    return lambda folder: image.save(folder / file, kind, **options)


def giant(folder: Path) -> None:
    """A JPEG whose header claims 60,000 x 60,000 pixels."""
    image = bytearray((folder / JPEG).read_bytes())
    start = image.index(b"\xff\xc0") + 5
    image[start : start + 4] = (60_000).to_bytes(2, "big") * 2
    (folder / JPEG).write_bytes(bytes(image))


def link_outside(folder: Path) -> None:
    """The image is a link to one outside of the release."""
    shutil.move(folder / JPEG, folder / "elsewhere.jpg")
    (folder / JPEG).symlink_to(folder / "elsewhere.jpg")


def sideways() -> Image.Exif:
    """EXIF that says that the picture lies on its side."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


def image_published(folder: Path) -> None:
    """SHA256SUMS.txt with the image as it is now."""
    digest = hashlib.sha256((folder / JPEG).read_bytes()).hexdigest()
    put(folder / SUMS, f"{digest}  {JPEG.removeprefix('cxr/')}\n")


def second_patient(folder: Path) -> None:
    """Another stay, with an image, in the cohort."""
    for file, row in {
        PATIENTS: "3,F,40,2150,2011 - 2013,",
        ADMISSIONS: "3,13,2150-01-01 10:00:00,2150-01-09 10:00:00,,EW EMER.,P1,,HOME,Other,ENGLISH,,WHITE,,,0",
        STAYS: "3,13,33,MICU,MICU,2150-01-01 12:00:00,2150-01-05 12:00:00,4.0",
        CHART: "3,13,33,7,2150-01-01 13:00:00,,220045,88,88,bpm,0",
        METADATA: "c-1,3,53,CHEST (PORTABLE AP),AP,400,300,21500101,133000,,,",
    }.items():
        add(file, f"{row}\n")(folder)
    put(folder / "cxr/files/p3/p3/s53/c-1.jpg", (folder / JPEG).read_bytes())


def gigabyte(file: str, before: bytes) -> Damage:
    """A gz file of a megabyte that unpacks to `before` and a gigabyte without a line's end."""
    return lambda folder: (
        (folder / file).write_bytes(gzip.compress(before) + gzip.compress(b"x" * 2**24, 9) * 64) and None
    )


# case -> (the stage that refuses it, the damage). A stage's forerunners run after the damage.
REFUSED: dict[str, tuple[str, Damage]] = {
    "wrong-path": ("paths", params("data.mimiciv", "nowhere")),
    "folder-too-deep": ("paths", params("data.mimiciv", "iv/hosp")),
    "folder-too-high": ("paths", params("data.mimiciv", ".")),
    "mimic-iii": (
        "paths",
        chain(move(CHART, "iv/CHARTEVENTS.csv.gz"), lambda folder: (folder / "iv/hosp").rename(folder / "aside")),
    ),
    "folders-swapped": ("paths", chain(params("data.mimiciv", "cxr"), params("data.mimic_cxr", "iv"))),
    "layout-of-1.0": (
        "paths",
        chain(
            lambda folder: (folder / "iv/core").mkdir(),
            *(move(name, name.replace("hosp", "core")) for name in (PATIENTS, ADMISSIONS)),
        ),
    ),
    "unknown-release": ("manifest", params("data.accept_unlisted_release", False)),
    "missing-table": ("paths", remove(CHART)),
    "missing-metadata": ("paths", remove(METADATA)),
    "other-suffix": ("paths", chain(write(METADATA.removesuffix(".gz"), "dicom_id\n"), remove(METADATA))),
    "table-twice": ("paths", write(CHART.removesuffix(".gz"), "stay_id\n")),
    "table-is-a-folder": ("paths", chain(remove(CHART), lambda folder: (folder / CHART).mkdir())),
    "missing-column": ("manifest", rewritten(CHART, lambda row: row[:2] + row[3:])),
    "misnamed-column": ("manifest", swap(PATIENTS, "anchor_age", "age")),
    "column-twice": ("manifest", swap(CHART, "warning", "VALUE")),
    "other-separator": ("manifest", swap(CHART, ",", ";")),
    "truncated-gz": ("manifest", raw(CHART, lambda file: file[:-20])),
    "gz-checksum": ("manifest", raw(CHART, lambda file: file[:-8] + bytes([file[-8] ^ 1]) + file[-7:])),
    "text-under-gz": ("manifest", raw(CHART, gzip.decompress)),
    "zeros-after-gz": ("manifest", raw(CHART, lambda file: file + bytes(512))),
    "empty-table": ("manifest", write(CHART, "")),
    "empty-file": ("manifest", raw(CHART, lambda _: b"")),
    "header-only": ("manifest", text(CHART, lambda rows: rows.splitlines()[0] + "\n")),
    "unclosed-quote-in-header": ("manifest", swap(CHART, "warning", '"warning')),
    "carriage-returns-alone": ("manifest", swap(CHART, "\n", "\r")),
    "not-utf-8": ("manifest", swap(CHART, "None", b"No\xffne")),
    "not-utf-8-in-a-column-not-read": ("manifest", swap(CHART, ",31,7,", b",31,\xb07,")),
    "zero-byte": ("manifest", swap(CHART, "None", "No\0ne")),
    "utf-16": ("manifest", lambda folder: put(folder / CHART, content(folder, CHART).decode().encode("utf-16"))),
    "field-of-10-mb": ("manifest", swap(CHART, "None", "x" * 10_000_000)),
    "changed-since-the-manifest": ("ingest", add(CHART, ROW)),
    "too-few-fields": ("ingest", add(CHART, "1,11,31\n")),
    "one-field-too-few": ("ingest", swap(CHART, ROW, ROW.removesuffix(",0"))),
    "too-many-fields": ("ingest", swap(CHART, ROW, ROW + ",0,0")),
    "unclosed-quote": ("ingest", swap(CHART, "220045,88,", '220045,"88,')),
    "unclosed-quote-in-the-last-row-in-a-column-not-read": ("ingest", add(CHART, ROW.removesuffix("0") + '"0')),
    "text-behind-a-quote": ("ingest", swap(CHART, "220045,88,", '220045,"88"x,')),
    "line-ends-of-two-kinds": ("ingest", swap(CHART, ROW + "\n", ROW + "\r\n")),
    "header-in-mid-file": ("ingest", text(CHART, lambda rows: rows + rows)),
    "lines-all-blank": ("ingest", text(OUTPUT, lambda rows: rows.splitlines()[0] + "\n\n\n")),
    "no-usable-row": ("ingest", swap(OUTPUT, ",31,", ",77,")),
    "id-no-number": ("ingest", swap(CHART, ",31,7,", ",x31,7,")),
    "id-with-decimals": ("ingest", swap(CHART, ",31,7,", ",31.7,7,")),
    "id-too-large": ("ingest", swap(CHART, ",31,7,", ",3147483648,7,")),
    "itemid-with-decimals": ("ingest", swap(CHART, "220045,88", "220045.4,88")),
    "no-such-day": ("ingest", swap(CHART, "2150-01-01 13:00:00", "2150-02-30 13:00:00")),
    "no-such-hour": ("ingest", swap(STAYS, "2150-01-01 12:00:00", "2150-01-01 25:00:00")),
    "infinite-time": ("ingest", swap(STAYS, "2150-01-05 12:00:00", "infinity")),
    "time-with-an-offset": ("ingest", swap(CHART, "2150-01-01 13:00:00", "2150-01-01 13:00:00-05:00")),
    "time-without-a-clock": ("ingest", swap(STAYS, "2150-01-01 12:00:00", "2150-01-01")),
    "date-of-death-no-date": ("ingest", swap(PATIENTS, "2161-02-03", "3 Feb 2161")),
    "number-no-number": ("ingest", swap(CHART, ",88,88,", ",88,88 bpm,")),
    "duplicate-stay": ("ingest", swap(STAYS, ",32,", ",31,")),
    "duplicate-admission": ("ingest", swap(ADMISSIONS, "2,12,", "2,11,")),
    "duplicate-subject": ("ingest", add(PATIENTS, "1,F,50,2150,2011 - 2013,\n")),
    "duplicate-image": ("ingest", swap(METADATA, "a-1", "b-1 ")),
    "no-stay-id": ("ingest", swap(STAYS, ",32,", ",,")),
    "size-of-2-to-the-31": ("ingest", swap(METADATA, "400,300", f"{2**31},300", 1)),
    "no-stay-left": ("cohort", swap(STAYS, "2150-01-05", "2150-01-02")),
    "image-not-there": ("images", remove(JPEG)),
    "image-empty": ("images", raw(JPEG, lambda _: b"")),
    "image-truncated": ("images", raw(JPEG, lambda file: file[: len(file) // 2])),
    "image-huge": ("images", giant),
    "image-of-one-pixel": ("images", picture(JPEG, Image.new("L", (1, 1)), "JPEG")),
    "image-png-of-16-bits": ("images", picture(JPEG, Image.new("I;16", (64, 64)), "PNG")),
    "image-gif-with-a-palette": ("images", picture(JPEG, Image.new("P", (64, 64)), "GIF")),
    "image-id-that-leaves-the-folder": ("ingest", swap(METADATA, "a-1", "../../../../../a-1")),
    "image-id-absolute": ("ingest", swap(METADATA, "b-1", "/b-1")),
    "image-id-empty": ("ingest", swap(METADATA, "b-1,", ",")),
    "image-id-with-a-line-end": ("ingest", swap(METADATA, "b-1,", '"b\n1",')),
    "study-dates-in-another-format": ("ingest", swap(METADATA, ",215001", ",2150-01-")),
    "study-times-in-another-format": ("ingest", chain(swap(METADATA, "133000.5", "13:30"), swap(METADATA, "5.25", ""))),
    "image-damaged-in-the-middle": ("images", raw(JPEG, lambda file: file[:-300] + bytes(200) + file[-100:])),
    "image-not-as-published": (
        "images",
        chain(image_published, picture(JPEG, Image.radial_gradient("L").resize((300, 400)), "JPEG")),
    ),
    "image-link-that-leaves-the-folder": ("images", link_outside),
    "all-images-links-and-skipped": ("images", chain(params("images.skip", ["damaged"]), link_outside)),
    "all-images-not-there-and-skipped": ("images", chain(params("images.skip", ["damaged"]), remove("cxr/files"))),
    "unknown-key": ("paths", params("data.mimic", "iv")),
    "unknown-encoder": ("paths", params("training.image", "rad-dino")),
    "impossible-value": ("paths", params("ingest.threads", 0)),
    "too-many-threads": ("paths", params("ingest.threads", 1_000_000)),
    "key-twice": ("paths", text("params.yaml", lambda yaml: "scale: tiny\n" + yaml)),
    "stage-before-not-run": ("labels", remove("data/interim")),
    "no-hosp": ("paths", remove("iv/hosp")),
    "no-icu": ("paths", remove("iv/icu")),
    "differs-from-the-published-list": (
        "manifest",
        chain(params("data.accept_unlisted_release", False), published(), swap(CHART, "88,88", "89,89")),
    ),
    "data-is-a-link": ("paths", link("data")),
    "data-raw-is-a-link": ("paths", link("data/raw")),
}
AT_ONCE = {"changed-since-the-manifest", "stage-before-not-run"}  # the stages before do not run after the damage

# case -> (file in reports/data, key, words in the stage's log, damage); the count grows by one.
COUNTED: dict[str, tuple[str, str, str, Damage]] = {
    "stay-without-admission": (
        "cohort",
        "oddities.stays_of_unknown_subject_or_admission",
        "1 stays of unknown subject or admission",
        swap(STAYS, "2,12,32", "2,99,32"),
    ),
    "stay-without-subject": (
        "cohort",
        "oddities.stays_of_unknown_subject_or_admission",
        "1 stays of unknown subject or admission",
        swap(STAYS, "2,12,32", ",12,32"),
    ),
    "no-intime": (
        "cohort",
        "oddities.stays_without_intime",
        "1 stays without intime",
        swap(STAYS, "2160-01-01 12:00:00", ""),
    ),
    "no-outtime": (
        "cohort",
        "oddities.stays_without_outtime",
        "1 stays without outtime",
        swap(STAYS, "2160-01-05 12:00:00", ""),
    ),
    "outtime-before-intime": (
        "cohort",
        "oddities.stays_that_end_before_they_begin",
        "1 stays that end before they begin",
        swap(STAYS, "2160-01-05", "2159-01-05"),
    ),
    "dischtime-before-admittime": (
        "cohort",
        "oddities.stays_whose_admission_ends_before_it_begins",
        "1 stays whose admission ends before it begins",
        swap(ADMISSIONS, "2150-01-09", "2149-01-09"),
    ),
    "deathtime-before-intime": (
        "cohort",
        "oddities.deathtime_before_intime",
        "1 deathtime before intime",
        swap(ADMISSIONS, "2160-01-09 09:00:00", "2160-01-01 09:00:00"),
    ),
    "stay-after-death": (
        "cohort",
        "oddities.stays_that_begin_after_death",
        "1 stays that begin after death",
        swap(ADMISSIONS, "2160-01-09 09:00:00", "2160-01-01 12:00:00"),
    ),
    "stay-after-the-date-of-death": (
        "cohort",
        "oddities.stays_that_begin_after_death",
        "1 stays that begin after death",
        chain(
            swap(PATIENTS, "2161-02-03", "2159-12-31"),
            swap(ADMISSIONS, "2160-01-09 09:00:00", ""),
            swap(ADMISSIONS, ",,,1\n", ",,,0\n"),
        ),
    ),
    "stay-outside-of-its-admission": (
        "cohort",
        "oddities.stays_not_within_their_admission",
        "1 stays not within their admission",
        swap(STAYS, "2160-01-05 12:00:00", "2160-01-09 10:00:01"),
    ),
    "no-anchor-age": (
        "cohort",
        "oddities.stays_of_unknown_age",
        "1 stays of unknown age",
        swap(PATIENTS, "2,M,17,", "2,M,,"),
    ),
    "age-of-300": (
        "cohort",
        "oddities.stays_of_an_age_below_0_or_above_120",
        "1 stays of an age below 0 or above 120",
        swap(PATIENTS, "2,M,17,", "2,M,300,"),
    ),
    "anchor-year-of-1815": (
        "cohort",
        "oddities.stays_of_an_age_below_0_or_above_120",
        "1 stays of an age below 0 or above 120",
        swap(PATIENTS, "2,M,17,2160", "2,M,17,1815"),
    ),
    "expire-flag-of-2": (
        "cohort",
        "oddities.hospital_expire_flag_neither_0_nor_1",
        "1 hospital expire flag neither 0 nor 1",
        swap(ADMISSIONS, ",,,1\n", ",,,2\n"),
    ),
    "event-without-stay": (
        "ingest",
        "chart.dropped.stay not in icustays",
        "rows: stay not in icustays",
        add(CHART, ROW.replace(",31,", ",78,") + "\n"),
    ),
    "event-without-time": (
        "ingest",
        "chart.dropped.no charttime",
        "rows: no charttime",
        add(CHART, ROW.replace("2150-01-01 13:00:00", "") + "\n"),
    ),
    "nan": ("ingest", "chart.dropped.no value", "rows: no value", add(CHART, ROW.replace("88,88", ",NaN") + "\n")),
    "infinity": (
        "ingest",
        "chart.dropped.no value",
        "rows: no value",
        add(CHART, ROW.replace("88,88", ",-inf") + "\n"),
    ),
    "lab-of-no-stay": (
        "ingest",
        "lab.dropped.in no ICU stay",
        "rows: in no ICU stay",
        add(LABS, RESULT.replace(",11,", ",99,") + "\n"),
    ),
    "lab-without-time": (
        "ingest",
        "lab.dropped.no charttime",
        "rows: no charttime",
        add(LABS, RESULT.replace("2150-01-01 18:00:00", "") + "\n"),
    ),
    "lab-without-number": (
        "ingest",
        "lab.dropped.no number",
        "rows: no number",
        add(LABS, RESULT.replace("1.3,1.3", "UNABLE TO REPORT,") + "\n"),
    ),
    "lab-with-a-bound": (
        "ingest",
        "lab.noted.a bound for a number",
        "rows: a bound for a number",
        add(LABS, RESULT.replace("1.3,1.3", ",") + "<0.2.\n"),
    ),
    "lab-without-hadm_id": (
        "ingest",
        "lab.noted.without hadm_id",
        "rows: without hadm_id",
        add(LABS, RESULT.replace(",11,", ",,") + "\n"),
    ),
    "lab-without-storetime": (
        "ingest",
        "lab.noted.without storetime",
        "rows: without storetime",
        add(LABS, RESULT.replace("2150-01-01 18:30:00", "") + "\n"),
    ),
    "lab-stored-before-drawn": (
        "ingest",
        "lab.noted.stored before drawn",
        "rows: stored before drawn",
        add(LABS, RESULT.replace("18:30", "17:30") + "\n"),
    ),
    "lab-of-words-behind-a-bound": (
        "ingest",
        "lab.dropped.no number",
        "rows: no number",
        add(LABS, RESULT.replace("1.3,1.3", "GREATER THAN 6 HOURS OLD. TEST NOT PERFORMED,") + "\n"),
    ),
    "lab-in-another-unit": (
        "ingest",
        "lab.noted.unit umol/l of itemid 50912: converted",
        "1 rows: unit umol/l of itemid 50912: converted",
        add(LABS, RESULT.replace("1.3,1.3,mg/dL", "55,55,umol/L") + "\n"),
    ),
    "lab-in-a-unit-not-listed": (
        "ingest",
        "lab.dropped.unit mmol/l of itemid 50912",
        "left out 1 rows: unit mmol/l of itemid 50912",
        add(LABS, RESULT.replace("mg/dL", "mmol/L") + "\n"),
    ),
    "event-in-a-unit-not-listed": (
        "ingest",
        "chart.dropped.unit mmhg of itemid 220045",
        "left out 1 rows: unit mmhg of itemid 220045",
        add(CHART, ROW.replace("bpm", "mmHg") + "\n"),
    ),
    "event-of-another-subject": (
        "ingest",
        "chart.dropped.stay of another subject",
        "left out 1 rows: stay of another subject",
        add(CHART, "2" + ROW.removeprefix("1").replace("88,88", "91,91") + "\n"),
    ),
    "output-of-another-subject": (
        "ingest",
        "output.dropped.stay of another subject",
        "left out 1 rows: stay of another subject",
        add(OUTPUT, "2,11,31,7,2150-01-01 15:00:00,2150-01-01 15:00:00,226559,999,ml\n"),
    ),
    "event-twice": (
        "ingest",
        "chart.dropped.the same row again",
        "left out 1 rows: the same row again",
        add(CHART, ROW + "\n"),
    ),
    "output-twice": (
        "ingest",
        "output.dropped.the same row again",
        "left out 1 rows: the same row again",
        add(OUTPUT, "1,11,31,7,2150-01-01 14:00:00,2150-01-01 14:00:00,226559,120.5,ml\n"),
    ),
    "lab-twice": (
        "ingest",
        "lab.dropped.the same row again",
        "left out 1 rows: the same row again",
        add(LABS, f"{RESULT}\n{RESULT}\n"),
    ),
    "diagnosis-without-code": (
        "ingest",
        "diagnoses.dropped.no code",
        "1 rows: no code",
        add(DIAGNOSES, "1,11,9, ,9\n"),
    ),
    "blank-line": ("ingest", "output.lines_without_row", "1 lines are blank", add(OUTPUT, "\n")),
    "line-end-in-quotes": (
        "ingest",
        "chart.lines_without_row",
        "1 lines are blank or inside of quoted text",
        swap(CHART, ",31,7,", ',31,"7\n",'),
    ),
    "value-out-of-range": (
        "series",
        "variables.heart_rate.out_of_range",
        "1 out of range",
        add(CHART, ROW.replace("88,88", "9999,9999") + "\n"),
    ),
    "weight-that-jumps": (
        "series",
        "variables.weight.hours_that_jump",
        "weight: of 2 rows 1 hours that jump",
        chain(
            add(CHART, ROW.replace("220045,88,88,bpm", "224639,81.6,81.6,kg") + "\n"),
            add(
                CHART,
                ROW.replace("01 13:00:00,", "02 13:00:00,").replace("220045,88,88,bpm", "224639,251,251,kg") + "\n",
            ),
        ),
    ),
    "unknown-code": ("labels", "codes.unknown_rows", "1 diagnoses have a code", add(DIAGNOSES, "1,11,9,XXX,9\n")),
    "image-without-patient": (
        "cohort",
        "images.frontal_images_of_no_stay_of_the_cohort",
        "1 frontal images of no stay of the cohort",
        add(METADATA, "c-1,9,59,CHEST (PORTABLE AP),AP,400,300,21500101,133000,,,\n"),
    ),
    "image-without-usable-time": (
        "cohort",
        "images.images_without_usable_time",
        "1 images without usable time",
        swap(METADATA, "5.25", "noon"),
    ),
    "image-of-no-size": (
        "cohort",
        "images.images_of_unknown_size",
        "1 images of unknown size",
        swap(METADATA, "400,300", "-400,300", 1),
    ),
    "damaged-image-skipped": (
        "images",
        "left_out.images",
        "left out: cxr/files/p1/p1/s51/b-1.jpg: damaged",
        chain(second_patient, params("images.skip", ["damaged"]), raw(JPEG, lambda file: file[: len(file) // 2])),
    ),
    "missing-image-skipped": (
        "images",
        "left_out.images",
        "left out: cxr/files/p1/p1/s51/b-1.jpg: not found",
        chain(second_patient, params("images.skip", ["damaged"]), remove(JPEG)),
    ),
    "image-not-listed": (
        "images",
        "checksums.not_listed",
        "not_listed 1",
        write(SUMS, f"{'0' * 64}  README.md\n"),
    ),
    "image-of-another-size": (
        "images",
        "oddities.images_of_another_size_than_the_metadata_say",
        "1 images of another size than the metadata say",
        swap(METADATA, "400,300", "300,400", 1),
    ),
    "image-of-one-grey": (
        "images",
        "oddities.images_of_one_grey",
        "1 images of one grey",
        picture(JPEG, Image.new("L", (300, 400), 9), "JPEG"),
    ),
    "image-that-exif-would-turn": (
        "images",
        "oddities.images_that_exif_would_turn",
        "1 images that exif would turn",
        picture(JPEG, Image.linear_gradient("L"), "JPEG", exif=sideways()),
    ),
    "unpacked-and-changed": (
        "manifest",
        "mimiciv.checksums.files_not_listed",
        "6 of 7 needed files compared with SHA256SUMS.txt, which does not name icu/chartevents.csv",
        chain(published(), unpacked(CHART), swap(CHART.removesuffix(".gz"), "88,88", "89,89")),
    ),
    "cmyk": ("images", "colour_modes.CMYK", "1 CMYK", picture(JPEG, Image.new("CMYK", (64, 64)), "JPEG")),
}
STAYS_COUNTED = {"image-not-listed", "cmyk"}  # an image in use is a stay: the report tells that there are fewer than 10

TABLES = (
    CHART,
    OUTPUT,
    LABS,
    PATIENTS,
    ADMISSIONS,
    DIAGNOSES,
    METADATA,
    FINDINGS,
)  # and STAYS, which has a quoted comma


def everywhere(damage: Callable[[str], Damage], *more: str) -> Damage:
    """One change of every table."""
    return chain(*(damage(file) for file in (*TABLES, *more)))


# Case -> damage that changes nothing in data/interim, to the byte.
SAME: dict[str, Damage] = {
    "bom": everywhere(lambda file: text(file, lambda rows: "\ufeff" + rows), STAYS),
    "crlf": everywhere(lambda file: swap(file, "\n", "\r\n"), STAYS),
    "no-line-end-at-the-end": everywhere(lambda file: text(file, lambda rows: rows.rstrip("\n")), STAYS),
    "other-case-of-the-header": everywhere(
        lambda file: text(file, lambda rows: rows.partition("\n")[0].swapcase() + "\n" + rows.partition("\n")[2]), STAYS
    ),
    "blanks-around-names": everywhere(lambda file: text(file, lambda rows: rows.replace(",", " , ", 3)), STAYS),
    "extra-columns": everywhere(lambda file: rewritten(file, lambda row: ["x y", *row, "more"])),
    "columns-in-another-order": everywhere(lambda file: rewritten(file, lambda row: row[::-1])),
    "rows-in-another-order": everywhere(
        lambda file: text(file, lambda rows: "\n".join([rows.splitlines()[0], *rows.splitlines()[:0:-1]]) + "\n"), STAYS
    ),
    "trailing-comma-in-a-row": swap(CHART, ROW, ROW + ","),
    "trailing-comma": everywhere(lambda file: swap(file, "\n", ",\n"), STAYS),
    "every-field-in-quotes": everywhere(lambda file: rewritten(file, lambda row: [f'"{field}"' for field in row])),
    "several-gz-members": everywhere(lambda file: members(file, 0.1, 0.4, 0.45), STAYS),
    "an-empty-gz-member": everywhere(lambda file: members(file, 0.3, empty=True), STAYS),
    "plain-csv": chain(params("data.cxr_tables", "csv"), everywhere(unpacked, STAYS)),
    "every-row-twice": chain(
        *(text(file, lambda rows: rows + rows.partition("\n")[2]) for file in (CHART, OUTPUT, LABS, DIAGNOSES))
    ),
    "units-in-other-words": chain(
        swap(CHART, "bpm", "BPM "), swap(OUTPUT, ",ml", ",mL"), swap(LABS, "mg/dL", ""), swap(LABS, "ng/mL", "ug / L")
    ),
    "trailing-blanks-in-codes": chain(
        swap(DIAGNOSES, "J9601", "J9601  "),
        swap(STAYS, "MICU,MICU", "MICU ,MICU  "),
        swap(ADMISSIONS, "EW EMER.", "EW EMER. "),
        swap(PATIENTS, "2011 - 2013", "2011 - 2013 "),
        swap(METADATA, ",AP,", ",AP ,"),
        swap(METADATA, "b-1,", "b-1 ,"),
    ),
    "ids-with-a-zero-decimal": chain(swap(CHART, ",31,", ",31.0,"), swap(METADATA, "400,300", "400.0,300.0")),
    "hidden-files": chain(
        write("iv/icu/._icustays.csv", b"\0\5\26\7\0\2Mac OS X"),
        lambda folder: (folder / "iv/hosp/._patients.csv.gz").write_bytes(b"\0\5\26\7\0\2Mac OS X") and None,
    ),
    "no-negbio-and-no-split": chain(
        remove(FINDINGS.replace("chexpert", "negbio")), remove(METADATA.replace("metadata", "split"))
    ),
    "times-of-other-exports": chain(
        swap(CHART, "2150-01-01 13:00:00", "2150-01-01T13:00:00"),
        swap(STAYS, "2150-01-01 12:00:00", "2150-01-01 12:00:00 UTC"),
    ),
}

# Case -> damage that changes neither cohort nor labels nor series, to the byte.
SAME_RESULTS: dict[str, Damage] = {
    "values-out-of-range": chain(
        COUNTED["value-out-of-range"][3],
        add(CHART, ROW.replace("88,88", "-5,-5").replace("13:00:00", "12:35:00") + "\n"),
    ),
    "orphan-events": chain(
        COUNTED["event-without-stay"][3],
        COUNTED["image-without-patient"][3],
        add(OUTPUT, "9,99,99,7,2150-01-01 14:00:00,2150-01-01 14:00:00,226559,500,ml\n"),
        add(DIAGNOSES, "9,99,1,0389,9\n"),
        add(LABS, RESULT.replace(",1,11,", ",9,99,") + "\n"),
    ),
    "nan-and-infinities": chain(COUNTED["nan"][3], COUNTED["infinity"][3]),
    "event-long-before-and-after": chain(
        add(CHART, ROW.replace("2150-01-01 13", "1950-01-01 13") + "\n"),
        add(CHART, ROW.replace("2150-01-01 13", "9150-01-01 13") + "\n"),
    ),
}

# Case -> a claim that memory must not follow; the manifest refuses it.
GIGABYTES: dict[str, Damage] = {
    "header-of-a-gigabyte": gigabyte(CHART, b""),
    "line-of-a-gigabyte": gigabyte(CHART, b"subject_id,stay_id,charttime,itemid,value,valuenum,valueuom\n"),
}
