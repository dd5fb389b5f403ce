"""By what others can see that two runs used the same cases, and nothing else: digests under this site's key.

Who doesn't hold the key can neither compute one from a list of cases nor tell anything from one but whether
it equals another.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedai.replicates import mark_of_draws
from fedai.study import Study
from fedai.wire import MARKS

if TYPE_CHECKING:
    from fedai_site.cohort import Case, Cohort

PURPOSE = b"fedai: marks of cohorts"


def marks_of(key: bytes, cohort: Cohort, study: Study) -> npt.NDArray[np.uint8]:
    """uint8 [MARKS, 32]: of the whole cohort with its files and labels, of the test cases and their files, of
    the test cases' labels, of their patients' weights. `key`: the pseudonyms'.
    """
    classes, test = study.task.classes, cohort.splits["test"]
    parts = {
        "snapshot": _mark(
            key,
            "snapshot",
            (
                (split, c.id, c.content, classes[c.label])
                for split, cases in cohort.splits.items()
                for c in cases
            ),
        ),
        "test_cases": _mark(key, "test_cases", ((c.id, c.sha256, c.patient) for c in test)),
        "test_labels": _mark(key, "test_labels", ((c.id, _label(c, classes)) for c in test)),
        "draws": mark_of_draws(seed_of_draws(key, cohort)),
    }
    return np.frombuffer(b"".join(parts[name] for name in MARKS), np.uint8).reshape(len(MARKS), 32)


def _label(case: Case, classes: Sequence[str]) -> str:
    """A case's class, or its mask."""
    return case.mask.sha256 if case.mask else classes[case.label]


def seed_of_draws(key: bytes, cohort: Cohort) -> bytes:
    """What `fedai.replicates` draws the test patients' weights from: others for other patients, and unknown
    to whoever doesn't hold the key.
    """
    return _mark(key, "draws", ((c.patient,) for c in cohort.splits["test"]))


def _mark(key: bytes, name: str, rows: Iterable[tuple[str, ...]]) -> bytes:
    own = hmac.digest(key, PURPOSE, "sha256")
    return hmac.digest(own, repr((name, sorted(set(rows)))).encode(), "sha256")
