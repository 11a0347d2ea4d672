"""params.yaml as frozen dataclasses: an unknown key, a wrong type or an impossible value is an error that names it.

`read("cohort", "scales.images")` returns the sub-blocks that a stage declares in dvc.yaml; `scales.X` stands for the
block that `scale` picks. `load()` returns everything. What a strategy accepts under `strategies.NAME` is checked by the
strategy itself (pipeline.modelling.registry), so that nothing here need know the strategies.
"""

from pipeline.params.data import (
    INPUT_HOURS,
    Cohort,
    CohortPreset,
    Data,
    Images,
    Ingest,
    Labels,
    Masks,
    Series,
    Splits,
    Synthetic,
    SyntheticRelease,
    Traps,
)
from pipeline.params.evaluation import Compare, Evaluation, Fairness, Margins, Report, Thresholds, Verdicts, Worth
from pipeline.params.reading import FILE, content, flat, load, read
from pipeline.params.scales import (
    Encoders,
    EvaluationScale,
    FairnessScale,
    ImagesScale,
    ProbeScale,
    Scale,
    SyntheticScale,
    TrainingScale,
    TuningScale,
)
from pipeline.params.training import (
    END_TO_END,
    Augment,
    Dimension,
    Embedding,
    Ensemble,
    Grid,
    SharedSpace,
    Training,
    Tuning,
)
from pipeline.params.whole import MOST_OWN, Params

__all__ = [
    "END_TO_END",
    "FILE",
    "INPUT_HOURS",
    "MOST_OWN",
    "Augment",
    "Cohort",
    "CohortPreset",
    "Compare",
    "Data",
    "Dimension",
    "Embedding",
    "Encoders",
    "Ensemble",
    "Evaluation",
    "EvaluationScale",
    "Fairness",
    "FairnessScale",
    "Grid",
    "Images",
    "ImagesScale",
    "Ingest",
    "Labels",
    "Margins",
    "Masks",
    "Params",
    "ProbeScale",
    "Report",
    "Scale",
    "Series",
    "SharedSpace",
    "Splits",
    "Synthetic",
    "SyntheticRelease",
    "SyntheticScale",
    "Thresholds",
    "Training",
    "TrainingScale",
    "Traps",
    "Tuning",
    "TuningScale",
    "Verdicts",
    "Worth",
    "content",
    "flat",
    "load",
    "read",
]
