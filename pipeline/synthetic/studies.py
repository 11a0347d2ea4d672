"""Radiographs as MIMIC-CXR-JPG lists them: which study was taken when, its images and views, the labels of its report.

Whether a stay has a frontal radiograph within 48 h depends on admission type and calendar year alone
(model.image_probability). Other studies lie outside of every stay's window, or show no frontal view. Pictures are drawn
by radiograph.py, developed by darkroom.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.params import Synthetic
from pipeline.synthetic import model, traps
from pipeline.synthetic.darkroom import Shot
from pipeline.synthetic.people import DAY, HOUR, People, shows
from pipeline.synthetic.streams import Floats, Ints, entropy, identifiers, pick, stream

WINDOW = 48 * HOUR
SHORT_STAY = 0.2  # short stays get a radiograph a fifth as often
PICTURED = tuple(name for name, cause in model.CAUSES.items() if cause.seen_in != "ehr")
PORTABLE, PA_LAT, AP_LAT = "CHEST (PORTABLE AP)", "CHEST (PA AND LAT)", "CHEST (AP AND LAT)"
CODES = {"AP": "antero-posterior", "PA": "postero-anterior", "LATERAL": "lateral", "LL": "left lateral", None: None,
         "AP AXIAL": "antero-posterior axial", "LPO": "left posterior oblique", "RPO": "right posterior oblique",
         "AP LLD": "antero-posterior", "XTABLE LATERAL": "lateral"}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A kind of study: procedure text, and per image (ViewPosition, what is drawn, ViewCode, relative size)."""

    share: float
    procedure: str
    images: tuple[tuple[str | None, str, str | None, float], ...]


_AP, _PA, _LAT = ("AP", "AP", "AP", 1.0), ("PA", "PA", "PA", 1.0), ("LATERAL", "LATERAL", "LATERAL", 1.0)
FRONTAL = (  # each holds an image that is frontal by its ViewPosition, or by its procedure where that is null
    Plan(0.660, PORTABLE, (_AP,)),
    Plan(0.080, PA_LAT, (_PA, _LAT)),
    Plan(0.045, AP_LAT, (_AP, _LAT)),
    Plan(0.020, AP_LAT, (_AP, ("LL", "LATERAL", "LL", 1.0))),
    Plan(0.045, PORTABLE, (_AP, ("AP", "AP", "AP", 0.8))),
    Plan(0.015, PORTABLE, (_AP, _AP)),
    Plan(0.015, PA_LAT, (_PA, _AP, _LAT)),
    Plan(0.035, PORTABLE, ((None, "AP", "AP", 1.0),)),
    Plan(0.010, "CHEST AP PORT VIEW", ((None, "AP", None, 1.0),)),
    Plan(0.020, "CHEST (PA)", ((None, "PA", "PA", 1.0),)),
    Plan(0.025, PORTABLE, (_AP, ("AP AXIAL", "AP", "AP AXIAL", 1.0))),
)
OTHER = (  # nothing that the benchmark takes for frontal
    Plan(0.35, PA_LAT, ((None, "PA", None, 1.0), (None, "LATERAL", None, 1.0))),
    Plan(0.20, "CHEST (LAT ONLY)", (("LATERAL", "LATERAL", "LATERAL", 1.0),)),
    Plan(0.15, "CHEST (SINGLE VIEW)", ((None, "AP", None, 1.0),)),
    Plan(0.10, "CHEST (BILAT OBLIQUES ONLY)", (("LPO", "PA", "LPO", 1.0), ("RPO", "PA", "RPO", 1.0))),
    Plan(0.10, "CHEST (AP AXIAL)", (("AP AXIAL", "AP", "AP AXIAL", 1.0),)),
    Plan(0.05, "CHEST (LAT DECUB ONLY)", (("AP LLD", "AP", "AP LLD", 1.0),)),
    Plan(0.05, "CHEST (LAT ONLY)", (("XTABLE LATERAL", "LATERAL", "XTABLE LATERAL", 1.0),)),
)
SHAPES = ((1.0, 0.82), (0.82, 1.0), (1.0, 1.0), (0.92, 1.0))  # rows and columns as shares of the longer side
# finding: (cause, threshold from which the report affirms it, chance that it is denied below)
FINDINGS: dict[str, tuple[str | None, float, float]] = {
    "Atelectasis": ("effusion", 1.0, 0.02),
    "Cardiomegaly": ("heart_size", 0.8, 0.08),
    "Consolidation": ("opacity", 1.3, 0.22),
    "Edema": ("overload", 0.8, 0.15),
    "Enlarged Cardiomediastinum": ("aorta", 1.3, 0.04),
    "Fracture": (None, 0.02, 0.01),
    "Lung Lesion": (None, 0.03, 0.01),
    "Lung Opacity": ("opacity", 0.6, 0.02),
    "Pleural Effusion": ("effusion", 0.5, 0.22),
    "Pleural Other": (None, 0.02, 0.0),
    "Pneumonia": ("opacity", 0.9, 0.15),
    "Pneumothorax": ("air", 0.0, 0.30),
    "Support Devices": ("pacing", 0.0, 0.01),
}
LABELS = sorted([*FINDINGS, "No Finding"])


@dataclass(frozen=True)
class Archive:
    """The tables of MIMIC-CXR-JPG, the pictures to draw, and the studies ordered in an ICU stay (stay_id, time)."""

    metadata: pl.DataFrame
    split: pl.DataFrame
    chexpert: pl.DataFrame
    negbio: pl.DataFrame
    shots: list[Shot]
    ordered: pl.DataFrame


def image_chance(params: Synthetic, stays: pl.DataFrame) -> Floats:
    """The planted chance of a frontal radiograph in each stay's window."""
    chance = model.image_probability(
        stays["admission_group"].to_numpy(),
        stays["year"].to_numpy(),
        params.image_missingness,
        traps.finding_log_odds(params.traps, stays),
    )
    chance = chance * np.where(stays["long"].to_numpy(), 1.0, SHORT_STAY)
    return np.where(stays["shares"].is_not_null().to_numpy(), 1.0, chance)


def pictured(params: Synthetic, stays: pl.DataFrame) -> NDArray[np.bool_]:
    """Whether each stay has a frontal radiograph in its window; `stays` are all of People, in their order."""
    return _present(stream(params.seed, "studies"), params, stays)


def _present(rng: np.random.Generator, params: Synthetic, stays: pl.DataFrame) -> NDArray[np.bool_]:
    return np.asarray(rng.random(stays.height) < image_chance(params, stays))


def archive(params: Synthetic, people: People, shown: dict[str, Floats], image_px: int) -> Archive:
    """The radiographs of all subjects; `shown` is what pictures show of each cause, by row of `people.admissions`."""
    studies = _studies(params, people)
    rng = stream(params.seed, "studies", "findings")
    causes = _causes(rng, params, studies, shown)
    studies = studies.with_columns(pl.Series("study_id", identifiers(rng, 50_000_000, 60_000_000, studies.height)))
    images = _images(params.seed, studies, image_px)
    subject, study = images["subject_id"].to_numpy(), images["study"].to_numpy()
    gender = studies["gender"].to_numpy()
    shots = []
    for k, (dicom, view, height, width) in enumerate(images.select("dicom_id", "drawn", "Rows", "Columns").rows()):
        s = int(study[k])
        findings: dict[str, float | bool] = {name: round(float(causes[name][s]), 4) for name in PICTURED}
        findings["breasts"] = bool(gender[s] == "F")
        path = f"files/p{str(subject[k])[:2]}/p{subject[k]}/s{studies['study_id'][s]}/{dicom}.jpg"
        shots.append(Shot(path, findings, view, height, width, entropy(params.seed, "picture", dicom)))
    columns = [
        "dicom_id",
        "subject_id",
        "study_id",
        "PerformedProcedureStepDescription",
        "ViewPosition",
        "Rows",
        "Columns",
        "StudyDate",
        "StudyTime",
        "ProcedureCodeSequence_CodeMeaning",
        "ViewCodeSequence_CodeMeaning",
        "PatientOrientationCodeSequence_CodeMeaning",
    ]
    chexpert, negbio = _labels(params.seed, studies, causes)
    ordered = studies.filter(pl.col("stay_id").is_not_null()).select("stay_id", pl.col("time").cast(pl.Int64))
    return Archive(images.select(columns), _split(params.seed, images), chexpert, negbio, shots, ordered)


def _studies(params: Synthetic, people: People) -> pl.DataFrame:
    """A row a study: subject_id, gender, adm (row of admissions, or -1), stay_id, time (seconds), plan, frontal."""
    rng = stream(params.seed, "studies")
    place = {key: i for i, key in enumerate(people.admissions["hadm_id"].to_list())}
    stays = people.stays.sort("stay_id").with_columns(
        pl.Series("adm", [place[key] for key in people.stays.sort("stay_id")["hadm_id"].to_list()]),
        pl.min_horizontal("outtime", "deathtime").alias("end"),
    )
    n = stays.height
    intime, end, long = stays["intime"].to_numpy(), stays["end"].to_numpy(), stays["long"].to_numpy()
    present = _present(rng, params, stays)
    covered = (
        model.image_probability(stays["admission_group"].to_numpy(), stays["year"].to_numpy(), params.image_missingness)
        > 0
    )
    parts: list[pl.DataFrame] = []

    def add(row: Ints, time: NDArray[Any], frontal: bool | NDArray[np.bool_], inside: bool) -> None:
        # the scanner's clock: seconds with fractions in steps of 1/32
        tick = np.floor(time * 32) / 32
        tick = np.where(rng.random(len(row)) < 0.2, np.floor(tick), tick)
        parts.append(stays[row].select("subject_id", "gender", "adm", "stay_id").with_columns(
            pl.Series("time", np.maximum(tick, intime[row]) if inside else tick),
            pl.Series("frontal", np.broadcast_to(frontal, len(row)).copy()),
            pl.lit(inside).alias("inside"),
        ))  # fmt: skip

    reach = np.minimum(WINDOW, end - intime).astype(float)
    row = np.flatnonzero(present & (stays["shares"] != "borrows").fill_null(True).to_numpy())
    first = intime[row] + reach[row] * np.minimum(
        rng.exponential(0.30, len(row)), rng.uniform(0.0, 1.0, len(row)) ** 0.2
    )
    edge = rng.random(len(row))  # on the edges of the window, which belong to it
    first = np.where(edge < 0.01, intime[row], np.where((edge > 0.99) & long[row], intime[row] + WINDOW, first))
    until = stays["shared_until"].fill_null(0).to_numpy()[row]  # inside of both windows, where two stays share an image
    first = np.where(until > 0, intime[row] + edge * (until - intime[row]), first)
    add(row, first, True, True)
    for share in (0.13, 0.04):
        again = rng.random(len(row)) < share
        later = intime[row] + reach[row] * rng.random(len(row))
        later = np.where(rng.random(len(row)) < 0.15, first, later)  # two studies with the same time
        add(row[again], later[again], (rng.random(len(row)) < 0.85)[again], True)
    row = np.flatnonzero(covered & ~present & (rng.random(n) < 0.05))
    add(row, intime[row] + reach[row] * rng.random(len(row)), False, True)
    row = np.flatnonzero(covered & (rng.random(n) < 0.05))
    add(row, intime[row] - rng.uniform(0.05, 30, len(row)) * HOUR, True, False)
    row = np.flatnonzero(covered & long & (rng.random(n) < 0.06))
    add(row, intime[row] + WINDOW + 60 + rng.random(len(row)) * (end - intime - WINDOW - 60)[row], True, False)
    # after discharge: mostly patients without one in the window, who are in MIMIC-CXR all the same
    later_share = np.where(long & ~present, 0.22, 0.015)
    row = np.flatnonzero(covered & stays["deathtime"].is_null().to_numpy() & (rng.random(n) < later_share))
    add(row, end[row] + rng.uniform(3, 90, len(row)) * DAY, True, False)

    studies = pl.concat(parts)
    strangers = max(2, n // 100)  # subjects of MIMIC-CXR whom MIMIC-IV does not know
    known = people.patients["subject_id"].to_list()
    ids = [i for i in identifiers(rng, 10_000_000, 20_000_000, 2 * strangers).tolist() if i not in set(known)][
        :strangers
    ]
    studies = pl.concat(
        [
            studies.filter(pl.col("inside") | ~_in_some_window(studies, people.stays)),
            pl.DataFrame(
                {
                    "subject_id": ids,
                    "gender": np.where(rng.random(strangers) < 0.5, "M", "F"),
                    "adm": np.full(strangers, -1),
                    "stay_id": pl.Series([None] * strangers, dtype=pl.Int64),
                    "time": rng.integers(160 * 365 * DAY, 220 * 365 * DAY, strangers).astype(float),
                    "frontal": np.full(strangers, True),
                    "inside": np.full(strangers, False),
                }
            ),
        ]
    )
    plans = np.where(
        studies["frontal"].to_numpy(),
        rng.choice(len(FRONTAL), studies.height, p=_shares(FRONTAL)),
        len(FRONTAL) + rng.choice(len(OTHER), studies.height, p=_shares(OTHER)),
    )
    if params.traps.view_by_severity:
        plans = _views_by_severity(params, people, studies, plans)
    outside = ~pl.col("inside")
    return studies.with_columns(
        pl.Series("plan", plans), pl.when(outside).then(None).otherwise(pl.col("stay_id")).alias("stay_id")
    )


def _views_by_severity(params: Synthetic, people: People, studies: pl.DataFrame, plans: Ints) -> Ints:
    """The trap: a share of the frontal studies of known patients is portable (AP) of the sick, erect (PA) of others."""
    rng = stream(params.seed, "studies", "views by severity")
    adm = studies["adm"].to_numpy()
    turned = (adm >= 0) & (plans < len(FRONTAL)) & (rng.random(len(plans)) < params.traps.view_by_severity)
    views = [{view or drawn for view, drawn, _, _ in plan.images} - {"LATERAL"} for plan in FRONTAL]
    chosen = []
    for view in ("AP", "PA"):
        weight = np.array([plan.share * (shown == {view}) for plan, shown in zip(FRONTAL, views, strict=True)])
        chosen.append(rng.choice(len(FRONTAL), len(plans), p=weight / weight.sum()))
    by_severity = np.where(traps.sick(people.admissions)[np.maximum(adm, 0)], *chosen)
    return np.where(turned, by_severity, plans)


def _shares(plans: tuple[Plan, ...]) -> Floats:
    share = np.asarray([plan.share for plan in plans])
    return np.asarray(share / share.sum())


def _in_some_window(studies: pl.DataFrame, stays: pl.DataFrame) -> pl.Series:
    """Whether a study lies in [intime, intime + 48 h] of any stay of its subject."""
    pairs = (
        studies.with_row_index("study")
        .select("study", "subject_id", "time")
        .join(stays.select("subject_id", "intime"), on="subject_id")
        .filter((pl.col("time") >= pl.col("intime")) & (pl.col("time") <= pl.col("intime") + WINDOW))
    )
    return pl.Series(np.isin(np.arange(studies.height), pairs["study"].to_numpy()))


def _causes(
    rng: np.random.Generator, params: Synthetic, studies: pl.DataFrame, shown: dict[str, Floats]
) -> dict[str, Floats]:
    """What each study shows: its admission's causes, each time a little different; strangers have their own."""
    adm = studies["adm"].to_numpy()
    share = model.image_signal(studies["gender"].to_numpy(), params.disparity)
    causes = {}
    for name in PICTURED:
        own = shows(rng, model.CAUSES[name].draw(rng, len(adm)), name, model.CXR_NOISE, share)
        value = np.where(adm < 0, own, shown[name][adm])
        jitter = 0.10 * rng.standard_normal(len(adm)) if model.CAUSES[name].spread else 0.0
        causes[name] = value + jitter
    return causes


def _images(seed: int, studies: pl.DataFrame, image_px: int) -> pl.DataFrame:
    """A row an image, by subject, study and dicom_id; `study` is the row of studies, `drawn` the view to draw."""
    rng = stream(seed, "images")
    plans = [*FRONTAL, *OTHER]
    rows: list[dict[str, Any]] = []
    study_ids, subjects = studies["study_id"].to_list(), studies["subject_id"].to_list()
    for s, (plan_index, time) in enumerate(studies.select("plan", "time").rows()):
        plan = plans[plan_index]
        date, clock = _clock(time)
        posture = "Recumbent" if plan.procedure in (PORTABLE, AP_LAT) else "Erect"
        for view, drawn, code, size in plan.images:
            tall, wide = SHAPES[int(rng.integers(len(SHAPES)))] if drawn != "LATERAL" else SHAPES[0]
            rows.append({
                "dicom_id": "-".join(f"{part:08x}" for part in rng.integers(0, 2**32, 5)),
                "subject_id": subjects[s], "study_id": study_ids[s], "study": s, "drawn": drawn,
                "PerformedProcedureStepDescription": plan.procedure, "ViewPosition": view,
                "Rows": round(image_px * tall * size), "Columns": round(image_px * wide * size),
                "StudyDate": date, "StudyTime": clock,
                "ProcedureCodeSequence_CodeMeaning": plan.procedure, "ViewCodeSequence_CodeMeaning": CODES[code],
                "PatientOrientationCodeSequence_CodeMeaning": posture if rng.random() < 0.65 else None,
            })  # fmt: skip
    return pl.DataFrame(rows, infer_schema_length=None).sort("subject_id", "study_id", "dicom_id")


def _clock(time: float) -> tuple[int, str]:
    """(StudyDate, StudyTime): YYYYMMDD, and HHMMSS.fff as a number, whose leading zeros are lost."""
    whole = int(time // 1)
    day = np.datetime64(whole // DAY, "D").item()
    seconds = whole % DAY
    number = seconds // 3600 * 10_000 + seconds % 3600 // 60 * 100 + seconds % 60
    return day.year * 10_000 + day.month * 100 + day.day, str(round(number + int((time - whole) * 1000) / 1000, 3))


def _split(seed: int, images: pl.DataFrame) -> pl.DataFrame:
    """The official split's shape: by subject, nearly all in train."""
    subjects = images["subject_id"].unique().sort()
    part = pick(stream(seed, "split"), {"train": 0.97, "validate": 0.012, "test": 0.018}, len(subjects)).astype(str)
    parts = pl.DataFrame({"subject_id": subjects, "split": part})
    return images.select("dicom_id", "study_id", "subject_id").join(
        parts, on="subject_id", how="left", maintain_order="left"
    )


def _labels(seed: int, studies: pl.DataFrame, causes: dict[str, Floats]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """CheXpert's and NegBio's labels: 1.0, 0.0, -1.0 or null; some studies have no row or an empty one."""
    rng = stream(seed, "labels")
    n = studies.height
    columns: dict[str, Floats] = {}
    for name, (cause, bound, denied) in FINDINGS.items():
        seen = rng.random(n) < bound if cause is None else causes[cause] + 0.2 * rng.standard_normal(n) > bound
        near = np.zeros(n) if cause is None or bound == 0 else np.exp(-(((causes[cause] - bound) / 0.4) ** 2))
        unsure = rng.random(n) < near * (0.5 if name in ("Pneumonia", "Edema", "Atelectasis") else 0.15)
        value = np.where(unsure, -1.0, np.where(seen, 1.0, np.where(rng.random(n) < denied, 0.0, np.nan)))
        columns[name] = value
    found = np.any([np.abs(columns[name]) == 1 for name in FINDINGS if name != "Support Devices"], axis=0)
    columns["No Finding"] = np.where(found, np.nan, 1.0)
    empty, absent = rng.random(n) < 0.01, rng.random(n) < 0.01
    tables = []
    for flipped in (0.0, 0.25):  # NegBio reads uncertain statements otherwise now and then
        values = {
            name: np.where(
                (columns[name] == -1) & (rng.random(n) < flipped), 1.0, np.where(empty, np.nan, columns[name])
            )
            for name in LABELS
        }
        frame = studies.select("subject_id", "study_id").with_columns(
            *[pl.Series(name, np.where(empty, np.nan, values[name])).fill_nan(None) for name in LABELS]
        )
        tables.append(frame.filter(pl.Series(~absent)).sort("subject_id", "study_id"))
    return tables[0], tables[1]
