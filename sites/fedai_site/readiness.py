"""What a site tells before a run: its cohort by counts, and what its images are like where the study asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fedai import wire
from fedai.overview import overview_arrays, values_of
from fedai.wire import Arrays, Metrics

if TYPE_CHECKING:
    from fedai_site.client_app import Bench


def ready(bench: Bench) -> tuple[Arrays, Metrics]:
    """The answer to `ready`, after what is told of was noted. Opens the catalogue, no image."""
    bench.remember()
    classes, cohort = len(bench.study.task.classes), bench.cohort
    told = [bench.told[split] for split in wire.SPLITS]
    patients = [len({case.patient for case in cases}) for cases in told]
    labels = [np.array([case.label for case in cases], dtype=np.int64) for cases in told]
    excluded = dict.fromkeys(wire.EXCLUSIONS, 0) | cohort.told
    metrics = {name: int(cohort.flow[name]) for name in wire.FLOW}
    metrics |= {f"excluded_{reason}": count for reason, count in excluded.items()}
    trained = {*bench.patients("train"), *bench.patients("validation")}
    metrics["overlapping_patients"] = len(trained & set(bench.patients("test")))
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "split_patients": np.array(patients, dtype=np.int64),
        "split_cases": np.stack([np.bincount(of, minlength=classes) for of in labels]).astype(np.int64),
        "marks": bench.marks(),
    }
    if bench.study.overview:
        cases = [case for of in told for case in of]
        values = values_of(case.traits for case in cases)
        arrays |= overview_arrays(values, [case.patient for case in cases], bench.permit.minimum_cell)
    return arrays, metrics
