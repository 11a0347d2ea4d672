"""The dictionaries d_items and d_labitems: the items that the hospital charts, with MIMIC-IV's labels and units."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

VITALS, RESPIRATORY, NEURO, LABS, GENERAL = "Routine Vital Signs", "Respiratory", "Neurological", "Labs", "General"


@dataclass(frozen=True)
class Item:
    """A row of d_items; `charted_unit` is the valueuom of its rows in the event table; `digits` of its numbers."""

    label: str
    abbreviation: str
    linksto: str
    category: str
    unitname: str | None
    param_type: str
    charted_unit: str | None = None
    digits: int = 0
    low: int | None = None
    high: int | None = None


def _chart(label: str, short: str, category: str, unit: str | None, charted: str | None, digits: int = 0) -> Item:
    return Item(label, short, "chartevents", category, unit, "Numeric", charted, digits)


def _text(label: str, short: str, category: str) -> Item:
    return Item(label, short, "chartevents", category, None, "Text")


def _output(label: str) -> Item:
    return Item(label, label, "outputevents", "Output", "mL", "Numeric", "ml")


def _input(label: str, category: str, unit: str) -> Item:
    return Item(label, label, "inputevents", category, unit, "Solution")


def _procedure(label: str, category: str) -> Item:
    return Item(label, label, "procedureevents", category, "None", "Processes")


ITEMS: dict[int, Item] = {
    220045: _chart("Heart Rate", "HR", VITALS, "bpm", "bpm"),
    220048: _text("Heart Rhythm", "Heart Rhythm", VITALS),
    220050: Item(
        "Arterial Blood Pressure systolic", "ABPs", "chartevents", VITALS, "mmHg", "Numeric", "mmHg", 0, 90, 140
    ),
    220051: Item(
        "Arterial Blood Pressure diastolic", "ABPd", "chartevents", VITALS, "mmHg", "Numeric", "mmHg", 0, 60, 90
    ),
    220052: _chart("Arterial Blood Pressure mean", "ABPm", VITALS, "mmHg", "mmHg"),
    220179: _chart("Non Invasive Blood Pressure systolic", "NBPs", VITALS, "mmHg", "mmHg"),
    220180: _chart("Non Invasive Blood Pressure diastolic", "NBPd", VITALS, "mmHg", "mmHg"),
    220181: _chart("Non Invasive Blood Pressure mean", "NBPm", VITALS, "mmHg", "mmHg"),
    220210: _chart("Respiratory Rate", "RR", RESPIRATORY, "insp/min", "insp/min"),
    220277: _chart("O2 saturation pulseoxymetry", "SpO2", RESPIRATORY, "%", "%"),
    220339: _chart("PEEP set", "PEEP set", RESPIRATORY, "cmH2O", "cmH2O"),
    220621: _chart("Glucose (serum)", "Glucose (serum)", LABS, "None", "mg/dL"),
    220739: _text("GCS - Eye Opening", "Eye Opening", NEURO),
    223761: _chart("Temperature Fahrenheit", "Temperature F", VITALS, "°F", "°F", 1),
    223762: _chart("Temperature Celsius", "Temperature C", VITALS, "°C", "°C", 1),
    223781: _text("Pain Present", "Pain Present", "Pain/Sedation"),
    223835: _chart("Inspired O2 Fraction", "FiO2", RESPIRATORY, "None", None, 1),
    223849: _text("Ventilator Mode", "Ventilator Mode", RESPIRATORY),
    223900: _text("GCS - Verbal Response", "Verbal Response", NEURO),
    223901: _text("GCS - Motor Response", "Motor Response", NEURO),
    224080: _text("Head of Bed", "HOB", "Treatments"),
    224639: _chart("Daily Weight", "Daily Weight", GENERAL, "kg", "kg", 1),
    224650: _text("Ectopy Type 1", "Ectopy Type 1", VITALS),
    224651: _text("Ectopy Frequency 1", "Ectopy Frequency 1", VITALS),
    224690: Item(
        "Respiratory Rate (Total)",
        "Respiratory Rate (Total)",
        "chartevents",
        RESPIRATORY,
        "insp/min",
        "Numeric",
        "insp/min",
        0,
        None,
        36,
    ),
    224700: _chart("Total PEEP Level", "Total PEEP Level", RESPIRATORY, "cmH2O", "cmH2O", 1),
    225309: _chart("ART BP Systolic", "ART BP Systolic", VITALS, "mmHg", "mmHg"),
    225310: _chart("ART BP Diastolic", "ART BP Diastolic", VITALS, "mmHg", "mmHg"),
    225312: _chart("ART BP Mean", "ART BP Mean", VITALS, "mmHg", "mmHg"),
    225664: _chart("Glucose finger stick (range 70-100)", "Glucose FS (range 70 -100)", LABS, "None", None),
    226479: _text("Ectopy Type 2", "Ectopy Type 2", VITALS),
    226480: _text("Ectopy Frequency 2", "Ectopy Frequency 2", VITALS),
    226512: _chart("Admission Weight (Kg)", "Admission Weight (Kg)", GENERAL, "kg", "kg", 1),
    226531: _chart("Admission Weight (lbs.)", "Admission Weight (lbs.)", GENERAL, "None", None, 1),
    226537: _chart("Glucose (whole blood)", "Glucose (whole blood)", LABS, "None", "mg/dL"),
    226707: _chart("Height", "Height", GENERAL, "Inch", "Inch"),
    226730: _chart("Height (cm)", "Height (cm)", GENERAL, "cm", "cm"),
    226732: _text("O2 Delivery Device(s)", "O2 Delivery Device(s)", RESPIRATORY),
    229314: _text("Ventilator Mode (Hamilton)", "Ventilator Mode (Hamilton)", RESPIRATORY),
    226557: _output("R Ureteral Stent"),
    226559: _output("Foley"),
    226560: _output("Void"),
    226561: _output("Condom Cath"),
    226563: _output("Suprapubic"),
    226564: _output("R Nephrostomy"),
    226567: _output("Straight Cath"),
    226584: _output("Ileoconduit"),
    226588: _output("Chest Tube #1"),
    226627: _output("OR Urine"),
    227488: _output("GU Irrigant Volume In"),
    227489: _output("GU Irrigant/Urine Volume Out"),
    227510: _output("TF Residual"),
    220949: _input("Dextrose 5%", "Fluids/Intake", "mL"),
    221906: _input("Norepinephrine", "Medications", "mg"),
    222168: _input("Propofol", "Medications", "mg"),
    225158: _input("NaCl 0.9%", "Fluids/Intake", "mL"),
    225798: _input("Vancomycin", "Antibiotics", "dose"),
    224275: _procedure("20 Gauge", "Access Lines - Peripheral"),
    225401: _procedure("Blood Cultured", "6-Cultures"),
    225459: _procedure("Chest X-Ray", "5-Imaging"),
    225752: _procedure("Arterial Line", "Access Lines - Invasive"),
    225792: _procedure("Invasive Ventilation", "2-Ventilation"),
}


@dataclass(frozen=True)
class Lab:
    """A row of d_labitems, and its results: median, spread (of the log where `log`), causes, reference range."""

    label: str
    category: str
    unit: str | None
    median: float
    spread: float
    log: bool
    digits: int
    low: float | None = None
    high: float | None = None
    causes: tuple[tuple[str, float], ...] = ()
    panel: str = "chemistry"


LABS_TABLE: dict[int, Lab] = {
    50801: Lab(
        "Alveolar-arterial Gradient",
        "Blood Gas",
        "mm Hg",
        480,
        90,
        False,
        0,
        None,
        None,
        (("gas_exchange", 40),),
        "rare",
    ),
    50802: Lab("Base Excess", "Blood Gas", "mEq/L", -1, 4, False, 0, None, None, (("circulation", -1.5),), "gas"),
    50803: Lab("Calculated Bicarbonate, Whole Blood", "Blood Gas", "mEq/L", 24, 3, False, 0, 21, 30, (), "rare"),
    50804: Lab("Calculated Total CO2", "Blood Gas", "mEq/L", 25, 4, False, 0, 21, 30, (("circulation", -1.2),), "gas"),
    50805: Lab("Carboxyhemoglobin", "Blood Gas", "%", 2, 0.6, True, 0, 0, 5, (), "rare"),
    50806: Lab("Chloride, Whole Blood", "Blood Gas", "mEq/L", 105, 5, False, 0, 96, 108, (), "gas"),
    50808: Lab("Free Calcium", "Blood Gas", "mmol/L", 1.12, 0.08, False, 2, 1.12, 1.32, (), "gas"),
    50809: Lab("Glucose", "Blood Gas", "mg/dL", 129, 0.15, True, 0, 70, 105, (("glycaemia", 0.25),), "gas"),
    50810: Lab("Hematocrit, Calculated", "Blood Gas", "%", 32, 5, False, 0, None, None, (), "gas"),
    50811: Lab("Hemoglobin", "Blood Gas", "g/dL", 10.5, 1.7, False, 1, 14, 18, (), "gas"),
    50813: Lab("Lactate", "Blood Gas", "mmol/L", 1.7, 0.22, True, 1, 0.5, 2.0, (("circulation", 0.38),), "gas"),
    50814: Lab("Methemoglobin", "Blood Gas", "%", 1, 0.5, True, 0, 0, 2, (), "rare"),
    50817: Lab("Oxygen Saturation", "Blood Gas", "%", 94, 2, False, 0, None, None, (("gas_exchange", -1.5),), "gas"),
    50818: Lab("pCO2", "Blood Gas", "mm Hg", 40, 7, False, 0, 35, 45, (("gas_exchange", 3.0),), "gas"),
    50820: Lab("pH", "Blood Gas", "units", 7.38, 0.05, False, 2, 7.35, 7.45, (("circulation", -0.03),), "gas"),
    50821: Lab("pO2", "Blood Gas", "mm Hg", 105, 0.30, True, 0, 85, 105, (("gas_exchange", -0.25),), "gas"),
    50822: Lab(
        "Potassium, Whole Blood", "Blood Gas", "mEq/L", 4.1, 0.5, False, 1, 3.3, 5.1, (("kidney", 0.15),), "gas"
    ),
    50824: Lab("Sodium, Whole Blood", "Blood Gas", "mEq/L", 137, 4, False, 0, 133, 145, (), "gas"),
    50861: Lab("Alanine Aminotransferase (ALT)", "Chemistry", "IU/L", 28, 0.7, True, 0, 0, 40, (), "liver"),
    50862: Lab("Albumin", "Chemistry", "g/dL", 3.4, 0.5, False, 1, 3.5, 5.2, (), "liver"),
    50863: Lab("Alkaline Phosphatase", "Chemistry", "IU/L", 91, 0.45, True, 0, 40, 130, (), "liver"),
    50867: Lab("Amylase", "Chemistry", "IU/L", 65, 0.6, True, 0, 0, 100, (), "rare"),
    50868: Lab("Anion Gap", "Chemistry", "mEq/L", 14, 2.5, False, 0, 8, 20, (("circulation", 1.2),)),
    50878: Lab("Asparate Aminotransferase (AST)", "Chemistry", "IU/L", 37, 0.7, True, 0, 0, 40, (), "liver"),
    50882: Lab("Bicarbonate", "Chemistry", "mEq/L", 25, 3, False, 0, 22, 32, (("circulation", -1.2),)),
    50883: Lab("Bilirubin, Direct", "Chemistry", "mg/dL", 0.8, 0.9, True, 1, 0, 0.3, (), "rare"),
    50884: Lab("Bilirubin, Indirect", "Chemistry", "mg/dL", 0.7, 0.8, True, 1, None, None, (), "rare"),
    50885: Lab("Bilirubin, Total", "Chemistry", "mg/dL", 0.6, 0.6, True, 1, 0, 1.5, (), "liver"),
    50889: Lab("C-Reactive Protein", "Chemistry", "mg/L", 20, 0.9, True, 1, 0, 5, (("inflammation", 0.7),), "rare"),
    50893: Lab("Calcium, Total", "Chemistry", "mg/dL", 8.5, 0.6, False, 1, 8.4, 10.3),
    50902: Lab("Chloride", "Chemistry", "mEq/L", 102, 5, False, 0, 96, 108),
    50910: Lab("Creatine Kinase (CK)", "Chemistry", "IU/L", 130, 1, True, 0, 47, 322, (), "rare"),
    50911: Lab("Creatine Kinase, MB Isoenzyme", "Chemistry", "ng/mL", 4, 0.9, True, 0, 0, 10, (), "rare"),
    50912: Lab("Creatinine", "Chemistry", "mg/dL", 1.05, 0.20, True, 1, 0.5, 1.2, (("kidney", 0.42),)),
    50927: Lab("Gamma Glutamyltransferase", "Chemistry", "IU/L", 90, 0.6, True, 0, 8, 61, (), "rare"),
    50930: Lab("Globulin", "Chemistry", "g/dL", 2.7, 0.5, False, 1, 2, 4, (), "rare"),
    50931: Lab("Glucose", "Chemistry", "mg/dL", 125, 0.15, True, 0, 70, 100, (("glycaemia", 0.25),)),
    50954: Lab("Lactate Dehydrogenase (LD)", "Chemistry", "IU/L", 280, 0.5, True, 0, 94, 250, (), "liver"),
    50963: Lab("NTproBNP", "Chemistry", "pg/mL", 2200, 0.9, True, 0, 0, 177, (("overload", 0.5),), "rare"),
    50971: Lab("Potassium", "Chemistry", "mEq/L", 4.1, 0.45, False, 1, 3.3, 5.1, (("kidney", 0.15),)),
    50976: Lab("Protein, Total", "Chemistry", "g/dL", 6.5, 0.7, False, 1, 6.4, 8.3, (), "rare"),
    50983: Lab("Sodium", "Chemistry", "mEq/L", 138, 4, False, 0, 133, 145),
    51003: Lab("Troponin T", "Chemistry", "ng/mL", 0.05, 1.0, True, 2, 0, 0.01, (), "rare"),
    51006: Lab("Urea Nitrogen", "Chemistry", "mg/dL", 21, 0.30, True, 0, 6, 20, (("kidney", 0.38),)),
    51196: Lab("D-Dimer", "Hematology", "ng/mL FEU", 900, 0.8, True, 0, 0, 500, (), "rare"),
    51214: Lab("Fibrinogen, Functional", "Hematology", "mg/dL", 280, 0.5, True, 0, 180, 400, (), "rare"),
    51221: Lab("Hematocrit", "Hematology", "%", 30, 4.5, False, 1, 40, 51, (), "count"),
    51222: Lab("Hemoglobin", "Hematology", "g/dL", 9.9, 1.5, False, 1, 13.7, 17.5, (), "count"),
    51237: Lab("INR(PT)", "Hematology", None, 1.3, 0.25, True, 1, 0.9, 1.1, (), "clotting"),
    51248: Lab("MCH", "Hematology", "pg", 30.1, 2.5, False, 1, 26, 32, (), "count"),
    51249: Lab("MCHC", "Hematology", "g/dL", 32.6, 1.5, False, 1, 32, 37, (), "count"),
    51250: Lab("MCV", "Hematology", "fL", 91, 6.5, False, 0, 82, 98, (), "count"),
    51265: Lab("Platelet Count", "Hematology", "K/uL", 190, 0.45, True, 0, 150, 400, (), "count"),
    51274: Lab("PT", "Hematology", "sec", 14, 0.2, True, 1, 9.4, 12.5, (), "clotting"),
    51275: Lab("PTT", "Hematology", "sec", 33, 0.3, True, 1, 25, 36.5, (), "clotting"),
    51277: Lab("RDW", "Hematology", "%", 15.4, 0.15, True, 1, 10.5, 15.5, (), "count"),
    51279: Lab("Red Blood Cells", "Hematology", "m/uL", 3.3, 0.6, False, 2, 4.6, 6.1, (), "count"),
    51297: Lab("Thrombin", "Hematology", "sec", 16, 0.2, True, 1, 10.3, 16.3, (), "rare"),
    51301: Lab(
        "White Blood Cells", "Hematology", "K/uL", 9.8, 0.30, True, 1, 4, 10, (("inflammation", 0.30),), "count"
    ),
}


def d_items(used: set[int]) -> pl.DataFrame:
    """d_items for the items in `used`, in order of itemid."""
    rows = [
        (i, x.label, x.abbreviation, x.linksto, x.category, x.unitname, x.param_type, x.low, x.high)
        for i, x in sorted(ITEMS.items())
        if i in used
    ]
    names = [
        "itemid",
        "label",
        "abbreviation",
        "linksto",
        "category",
        "unitname",
        "param_type",
        "lownormalvalue",
        "highnormalvalue",
    ]
    kinds = [pl.Int64, *[pl.String] * 6, pl.Int64, pl.Int64]
    return pl.DataFrame(rows, schema=dict(zip(names, kinds, strict=True)), orient="row")


def d_labitems(used: set[int]) -> pl.DataFrame:
    """d_labitems for the labs in `used`, in order of itemid."""
    rows = [(i, x.label, "Blood", x.category) for i, x in sorted(LABS_TABLE.items()) if i in used]
    return pl.DataFrame(
        rows,
        schema={"itemid": pl.Int64, "label": pl.String, "fluid": pl.String, "category": pl.String},
        orient="row",
    )
