"""Facts with a source and a date: models, GPUs and their prices, data sets, teachers and theirs.

The rows are YAML files in this folder. To add a model, a GPU or a price, add a row.
"""

from __future__ import annotations

from toasterft.catalog.rows import (
    DEFAULT_GPU,
    STALE_AFTER_DAYS,
    DatasetRow,
    Gpu,
    Model,
    Offer,
    Teacher,
    datasets,
    find_teacher,
    gpu,
    gpus,
    models,
    recognise_gpu,
    teacher,
    teachers,
)

__all__ = [
    "DEFAULT_GPU",
    "STALE_AFTER_DAYS",
    "DatasetRow",
    "Gpu",
    "Model",
    "Offer",
    "Teacher",
    "datasets",
    "find_teacher",
    "gpu",
    "gpus",
    "models",
    "recognise_gpu",
    "teacher",
    "teachers",
]
