"""The one door out. Whatever the site's own training code answers passes here, or nothing is sent.

A reply must decode to exactly the form that `fedai.wire` gives for the task; an exception leaves as a code
and a reference into this site's log. Both are in the ledger, on disk, before the first byte is sent.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedai import wire
from fedai.errors import FedaiError, RefusedByPolicy
from fedai.ledger import Ledger
from fedai.study import Study
from fedai.weights import Layout
from fedai.wire import Reply, Task
from fedai_site.sent import Objects, Sent, named


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


BOUNDED = ("parameters", "control")
Guard = Callable[[Reply], None]
"""Looks at a reply that fits the wire, and raises RefusedByPolicy where it may not leave all the same."""


def check_norm(reply: Reply, largest: float | None) -> None:
    """Raise RefusedByPolicy where the L2 norm of an update's parameters, or of a control variate beside them,
    is above the policy's bound.
    """
    if largest is None or reply.kind != "update":
        return
    bounded = [array for name, array in reply.arrays.items() if name in BOUNDED]
    norm = max(float(np.linalg.norm(array.astype(np.float64))) for array in bounded)
    if norm > largest:
        raise RefusedByPolicy(
            f"the update's L2 norm is {norm:.4g}; the policy allows {largest:g}", reason="UPDATE_NORM"
        )


@dataclass(frozen=True)
class Egress:
    """Checks and records. `pass_reply` and `pass_error` return only when the message may be sent."""

    ledger: Ledger
    sent: Sent | None = None

    def pass_reply(
        self,
        reply: Reply,
        task: Task,
        study: Study,
        layout: Layout,
        run: str,
        *,
        size: int,
        objects: Objects = {},  # noqa: B006
        guards: Sequence[Guard] = (),
    ) -> None:
        """Raises RefusedByPolicy where the reply isn't exactly what the task asked for, or a guard refuses
        it; the refusal is recorded. `objects`: the reply as it is packed, id -> bytes.
        """
        try:
            _check_run(run)
            wire.check(reply, task, study, layout)
            for guard in guards:
                guard(reply)
        except RefusedByPolicy as refusal:
            facts = {"why": refusal.message, "reason": refusal.reason or "NOT_THE_TASKS"}
            self.ledger.append(kind="refused", run=run[:80], study=study.sha256, task=task.kind, **facts)
            raise
        self._record(
            objects,
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
            head=reply.ledger.get("lines", 0),
        )

    def _record(self, objects: Objects, **facts: Any) -> None:
        """The line, and the bytes where they are kept: both on disk before anything is sent."""
        if self.sent is not None:
            last = self.ledger.last()
            self.sent.keep(last["seq"] + 1 if last else 1, objects)
        self.ledger.append(**facts, objects=named(objects.values()))

    def pass_error(self, sealed: Sealed, run: str, *, reason: str = "", objects: Objects = {}) -> None:  # noqa: B006
        """Record an error that leaves. Raises RefusedByPolicy where it is more than code and reference.

        `reason`: the rule that refused, for the ledger alone.
        """
        _check_run(run)
        if not wire.ERROR_PATTERN.fullmatch(str(sealed)):
            raise RefusedByPolicy("an error may leave only as a code and a reference")
        facts = {"code": sealed.code, "reference": sealed.reference, **({"reason": reason} if reason else {})}
        self._record(objects, kind="error", run=run, **facts)


def _check_run(run: str) -> None:
    if not wire.RUN_PATTERN.fullmatch(run):
        raise RefusedByPolicy("the name of the run is odd")


def _fact(name: str, array: Any) -> dict[str, object]:
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    return {"name": name, "dtype": str(array.dtype), "shape": list(array.shape), "sha256": digest}
