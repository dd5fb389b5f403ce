"""The one door out. Whatever the site's own training code answers passes here, or nothing is sent.

A reply must decode to exactly the form that `fedai.wire` gives for the task; an exception leaves as a code
and a reference into this site's log. Both are in the ledger, on disk, before the first byte is sent.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

from fedai import wire
from fedai.errors import FedaiError, RefusedByPolicy
from fedai.study import Study
from fedai.weights import Layout
from fedai.wire import Reply, Task
from fedai_site.ledger import Ledger


@dataclass(frozen=True)
class Sealed:
    """An exception as it may leave: a code of the error tree and a random reference."""

    code: str
    reference: str

    def __str__(self) -> str:
        return f"{self.code} {self.reference}"


def seal(error: BaseException) -> Sealed:
    """Make what may leave of an exception; the caller writes its text to the site's log under `reference`."""
    code = error.code if isinstance(error, FedaiError) else "BUG"
    return Sealed(code, secrets.token_hex(6))


@dataclass(frozen=True)
class Egress:
    """Checks and records. `pass_reply` and `pass_error` return only when the message may be sent."""

    ledger: Ledger

    def pass_reply(
        self, reply: Reply, task: Task, study: Study, layout: Layout, run: str, *, size: int
    ) -> None:
        """Raises RefusedByPolicy where the reply isn't exactly what the task asked for; the refusal is
        recorded.
        """
        try:
            _check_run(run)
            wire.check(reply, task, study, layout)
        except RefusedByPolicy as refusal:
            self.ledger.append(
                kind="refused", run=run[:80], study=study.sha256, task=task.kind, why=refusal.message
            )
            raise
        self.ledger.append(
            kind=reply.kind,
            run=run,
            study=reply.study,
            task=reply.task,
            round=reply.round,
            model=reply.model,
            bytes=size,
            arrays=[_fact(name, array) for name, array in sorted(reply.arrays.items())],
            metrics=dict(reply.metrics),
            words=dict(reply.words),
        )

    def pass_error(self, sealed: Sealed, run: str) -> None:
        """Record an error that leaves. Raises RefusedByPolicy where it is more than code and reference."""
        _check_run(run)
        if not wire.ERROR_PATTERN.fullmatch(str(sealed)):
            raise RefusedByPolicy("an error may leave only as a code and a reference")
        self.ledger.append(kind="error", run=run, code=sealed.code, reference=sealed.reference)


def _check_run(run: str) -> None:
    if not wire.RUN_PATTERN.fullmatch(run):
        raise RefusedByPolicy("the name of the run is odd")


def _fact(name: str, array: Any) -> dict[str, object]:
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    return {"name": name, "dtype": str(array.dtype), "shape": list(array.shape), "sha256": digest}
