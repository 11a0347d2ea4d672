"""A tiny hand-made pair of raw folders, in MIMIC's layout, for tests of the manifest and of ingest."""

import gzip
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.mimic.manifest import build_manifest
from pipeline.mimic.tables import ingest
from pipeline.mimic.variables import needed_itemids
from pipeline.params import Data, Ingest

PATIENTS = (
    "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n"
    "1,F,50,2150,2011 - 2013,\n"
    "2,M,17,2160,2014 - 2016,2161-02-03\n"
)
ADMISSIONS = (
    "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admit_provider_id,admission_location,"
    "discharge_location,insurance,language,marital_status,race,edregtime,edouttime,hospital_expire_flag\n"
    "1,11,2150-01-01 10:00:00,2150-01-09 10:00:00,,EW EMER.,P1,EMERGENCY ROOM,HOME,Medicare,?,,WHITE,,,0\n"
    "2,12,2160-01-01 10:00:00,2160-01-09 10:00:00,2160-01-09 09:00:00,URGENT,P1,,DIED,Other,ENGLISH,,None,,,1\n"
)
ICUSTAYS = (
    "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los\n"
    '2,12,32,"Unit, B",MICU,2160-01-01 12:00:00,2160-01-05 12:00:00,4.0\n'
    "1,11,31,MICU,MICU,2150-01-01 12:00:00,2150-01-05 12:00:00,4.0\n"
)
DIAGNOSES = (
    "subject_id,hadm_id,seq_num,icd_code,icd_version\n2,12,1,J9601,10\n1,11,2,4019   ,9\n1,11,1,0389,9\n1,11,1,0389,9\n"
)
CHARTEVENTS = (
    "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,valueuom,warning\n"
    "1,11,31,7,2150-01-01 13:00:00,2150-01-01 13:05:00,220045,88,88,bpm,0\n"
    "1,11,31,,2150-01-01 12:30:00,,220045,90,90,bpm,0\n"
    "1,11,31,,2150-01-01 12:30:00,,224650,None,,,0\n"
    "1,11,31,,2150-01-01 12:30:00,,223900,NA,,,0\n"
    "1,11,31,,2150-01-01 12:40:00,,999999,1,1,,0\n"  # an itemid that nobody needs
    "1,11,,,2150-01-01 12:40:00,,220045,70,70,bpm,0\n"  # no stay
    "1,11,77,,2150-01-01 12:40:00,,220045,70,70,bpm,0\n"  # a stay that icustays does not know
    "1,11,31,,,,220045,70,70,bpm,0\n"  # no charttime
    "1,11,31,,2150-01-01 12:50:00,,220045,,NaN,bpm,0\n"  # no value
)
OUTPUTEVENTS = (
    "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valueuom\n"
    "1,11,31,7,2150-01-01 14:00:00,2150-01-01 14:00:00,226559,120.5,ml\n"
    "1,11,31,7,2150-01-01 13:00:00,2150-01-01 14:00:00,226559,-0,ml\n"
)
LABEVENTS = (
    "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,storetime,value,valuenum,valueuom,"
    "ref_range_lower,ref_range_upper,flag,priority,comments\n"
    "1,1,11,5,50912,,2150-01-01 13:00:00,2150-01-01 14:10:00,___,1.2,mg/dL,0.5,1.2,,STAT,\n"
    "2,1,,6,50912,P1,2150-01-01 11:30:00,2150-01-01 12:00:00,1.1,1.1,mg/dL,0.5,1.2,,STAT,\n"  # ready at intime
    "3,1,11,7,51003,,2150-01-01 15:00:00,,,,ng/mL,0,0.01,,STAT,<0.01.  cTropnT > 0.10 ng/mL suggests Acute MI.\n"
    "4,1,11,8,51003,,2150-01-01 16:00:00,2150-01-01 15:59:00,___,,ng/mL,0,0.01,,STAT,HEMOLYZED.\n"
    "5,1,12,9,50912,,2150-01-01 17:00:00,2150-01-01 17:30:00,9,9,mg/dL,0.5,1.2,,STAT,\n"  # another admission
    "6,1,11,9,50912,,2150-01-01 17:00:00,2150-01-01 16:30:00,-0,-0,mg/dL,0.5,1.2,,STAT,\n"  # stored before drawn
    "7,1,11,9,50999,,2150-01-01 17:00:00,2150-01-01 17:30:00,9,9,mg/dL,0.5,1.2,,STAT,\n"  # an itemid nobody needs
    "8,1,11,9,50912,,,2150-01-01 17:30:00,9,9,mg/dL,0.5,1.2,,STAT,\n"  # no charttime
)
METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning\n"
    "b-1,1,51,CHEST (PORTABLE AP),AP,400,300,21500101,133000.5,CHEST (PORTABLE AP),antero-posterior,Erect\n"
    "a-1,1,52,CHEST (PA AND LAT),,400,300,21500102,5.25,CHEST (PA AND LAT),,\n"
)
FINDINGS = (
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,"
    "No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
LABELS = f"subject_id,study_id,{FINDINGS}\n1,51,1.0,,-1.0,0.0,,,,,,,,,,\n"
SPLIT = "dicom_id,study_id,subject_id,split\nb-1,51,1,train\na-1,52,1,test\n"

CHART_FILE, OUTPUT_FILE, LAB_FILE = (
    "iv/icu/chartevents.csv.gz",
    "iv/icu/outputevents.csv.gz",
    "iv/hosp/labevents.csv.gz",
)
STAYS_FILE, PATIENTS_FILE = "iv/icu/icustays.csv.gz", "iv/hosp/patients.csv.gz"
FILES = {
    "iv/hosp/patients.csv.gz": PATIENTS,
    "iv/hosp/admissions.csv.gz": ADMISSIONS,
    "iv/hosp/diagnoses_icd.csv.gz": DIAGNOSES,
    "iv/hosp/labevents.csv.gz": LABEVENTS,
    "iv/icu/icustays.csv.gz": ICUSTAYS,
    "iv/icu/chartevents.csv.gz": CHARTEVENTS,
    "iv/icu/outputevents.csv.gz": OUTPUTEVENTS,
    "cxr/mimic-cxr-2.0.0-metadata.csv.gz": METADATA,
    "cxr/mimic-cxr-2.0.0-split.csv.gz": SPLIT,
    "cxr/mimic-cxr-2.0.0-chexpert.csv.gz": LABELS,
    "cxr/mimic-cxr-2.0.0-negbio.csv.gz": LABELS,
}
NEEDED = {  # some of the itemids that variables.yaml wants, and what of them
    source: {itemid: needed_itemids(source)[itemid] for itemid in itemids}
    for source, itemids in {
        "chartevents": (220045, 223900, 224650),
        "outputevents": (226559,),
        "labevents": (50912, 51003),
    }.items()
}
BOUNDS = Ingest(memory_gb=1.0, threads=1)


def put(path: Path, content: str | bytes) -> None:
    """Write text or bytes, compressed where the name ends in .gz; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)


def raw_tree(folder: Path, changes: dict[str, str | bytes | None] | None = None, **params: object) -> Data:
    """The folders iv/ and cxr/ in `folder`, with some files changed or (None) left out; the params that name them."""
    for name, content in {**FILES, **(changes or {})}.items():
        if content is not None:
            put(folder / name, content)
    values = {"cxr_tables": "csv.gz", "accept_unlisted_release": True, **params}
    return Data(mimiciv=str(folder / "iv"), mimic_cxr=str(folder / "cxr"), **values)  # type: ignore[arg-type]


def ingested(
    folder: Path, changes: dict[str, str | bytes | None] | None = None, bounds: Ingest = BOUNDS, **params: object
) -> tuple[dict[str, pl.DataFrame], dict[str, Any]]:
    """The interim tables of `raw_tree` by name, and the counts."""
    manifest = build_manifest(raw_tree(folder, changes, **params))
    out = folder / "data" / "interim"
    counts = ingest(manifest, NEEDED, bounds, out)
    return {name: pl.read_parquet(out / f"{name}.parquet") for name in counts}, counts
