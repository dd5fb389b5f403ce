"""Approvals: this site's yes to one study, by content hash, signed and kept here alone.

`approvals/HASH.json` holds the study and what was signed: study, bundle of the release, policy, snapshot of
the cohort (`HASH.cohort`), and until when it holds. Files of earlier releases hold no signature; they count
where the home has no policy. What was taken back lies in `approvals/revoked/`, a no in `approvals/rejected/`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from fedai.errors import ConfigError, RefusedByPolicy
from fedai.release import BUNDLE_SHA256
from fedai.signatures import (
    Key,
    Signature,
    StudySignature,
    fingerprint,
    is_signed,
    public_key,
    read_key,
    sign,
)
from fedai.study import Study, parse_study
from fedai.yamlfile import Frozen
from fedai_site.policy import Policy

if TYPE_CHECKING:
    from fedai_site.cohort import Cohort

REJECTED = "rejected"


class Terms(Frozen):
    """What a signature under an approval covers. `policy_sha256` is empty where the home has no policy,
    `expires` (ISO 8601, UTC) where the approval has no end.
    """

    study_sha256: str
    bundle_sha256: str
    policy_sha256: str
    cohort_sha256: str
    training_patients: int
    approved_at: str
    expires: str

    @property
    def id(self) -> str:
        """Names the approval; what is spent is counted under it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:32]

    def basis(self) -> tuple[str | int, ...]:
        """What was looked at, without when."""
        return (self.study_sha256, self.bundle_sha256, self.policy_sha256, self.cohort_sha256)

    @property
    def until(self) -> float:
        """Unix time at which it ends."""
        return datetime.fromisoformat(self.expires).timestamp() if self.expires else float("inf")


class Mark(Frozen):
    """One person's signature under the terms."""

    by: str
    at: str
    key: Key
    signature: Signature

    def holds(self, terms: Terms) -> bool:
        """Whether it is the key's signature over exactly these terms, this name and this time."""
        return is_signed("approval", _marked(terms, self.by, self.at), self.key, self.signature)


class Kept(Frozen):
    """An approval's file. `signature` is the one that came with the study."""

    study: str
    approved_by: str
    approved_at: str
    terms: Terms | None = None
    signature: StudySignature | None = None
    marks: tuple[Mark, ...] = ()


class Rejection(Frozen):
    """Who said no to a study, when, and why."""

    by: str = ""
    why: str = ""
    at: str = ""


@dataclass(frozen=True)
class Approval:
    """One line of `fedai site status`."""

    study_sha256: str
    study_name: str
    version: int
    approved_by: str
    approved_at: str
    expires: str = ""
    signatures: int = 0


def _marked(terms: Terms, by: str, at: str) -> dict[str, object]:
    return {"terms": terms.model_dump(), "by": by, "at": at}


def case_marks(cohort: Cohort) -> list[str]:
    """A keyless digest of each case with its file, patient, label and split: a cohort's snapshot, sorted."""
    return sorted(
        hashlib.sha256(repr((case.id, case.content, case.patient, case.label, split)).encode()).hexdigest()[
            :32
        ]
        for split, cases in cohort.splits.items()
        for case in cases
    )


def training_patients(cohort: Cohort) -> int:
    """Patients that train."""
    return len({case.patient for case in cohort.splits["train"]})


def terms_of(study: Study, policy: Policy | None, cohort: Cohort, now: datetime) -> Terms:
    """What approving the study now would cover."""
    end = now + timedelta(days=policy.approval_days) if policy else None
    return Terms(
        study_sha256=study.sha256,
        bundle_sha256=BUNDLE_SHA256,
        policy_sha256=policy.sha256 if policy else "",
        cohort_sha256=_digest(case_marks(cohort)),
        training_patients=training_patients(cohort),
        approved_at=now.isoformat(timespec="milliseconds"),
        expires=end.isoformat(timespec="seconds") if end else "",
    )


def _digest(marks: list[str]) -> str:
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()


def approve(folder: Path, study: Study, by: str) -> Approval:
    """Record a yes without a signature, as earlier releases did. Saying it twice changes nothing."""
    before = _read(folder / f"{study.sha256}.json")
    if before is not None:
        return before[1]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return _write(folder, study, Kept(study=study.canonical(), approved_by=by, approved_at=now))


def sign_approval(
    folder: Path,
    study: Study,
    by: str,
    key: Path,
    terms: Terms,
    cohort: Cohort,
    signature: StudySignature | None,
) -> Approval:
    """Sign a yes. Where one stands already on the same basis, the signature is added to it, once; else this
    one takes its place, and begins with budgets unspent. Raises ConfigError for a key that is none.
    """
    private = read_key(key)
    found = _read(folder / f"{study.sha256}.json")
    kept = found[0] if found else None
    stands = kept is not None and kept.terms is not None and _stands(kept.terms, terms)
    if kept is None or kept.terms is None or not stands:
        kept = Kept(study=study.canonical(), approved_by=by, approved_at=terms.approved_at, terms=terms)
        (folder / f"{study.sha256}.cohort").write_text("\n".join(case_marks(cohort)), encoding="ascii")
    assert kept.terms is not None
    mark = Mark(
        by=by,
        at=terms.approved_at,
        key=public_key(private),
        signature=sign("approval", _marked(kept.terms, by, terms.approved_at), private),
    )
    others = tuple(one for one in kept.marks if one.holds(kept.terms))
    marks = others if mark.key in {one.key for one in others} else (*others, mark)
    names = " and ".join(one.by for one in marks)
    changed = {"marks": marks, "approved_by": names, "signature": signature}
    (folder / REJECTED / f"{study.sha256}.json").unlink(missing_ok=True)
    return _write(folder, study, kept.model_copy(update=changed))


def _stands(before: Terms, now: Terms) -> bool:
    return before.basis() == now.basis() and before.until > time.time()


def _write(folder: Path, study: Study, kept: Kept) -> Approval:
    path = folder / f"{study.sha256}.json"
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(kept.model_dump_json(indent=1), encoding="utf-8")
    partial.replace(path)
    return _line(study, kept)


def _line(study: Study, kept: Kept) -> Approval:
    expires = kept.terms.expires if kept.terms else ""
    by = " and ".join(mark.by for mark in kept.marks) or kept.approved_by  # a mark's name is signed
    told = (by, kept.approved_at, expires, len(kept.marks))
    return Approval(study.sha256, study.name, study.version, *told)


def revoke(folder: Path, sha256: str) -> bool:
    """Take a yes back: a run of that study stops here before its next batch, and nothing more of it leaves.

    False where there was none.
    """
    path = folder / f"{sha256}.json"
    if not path.exists():
        return False
    (folder / "revoked").mkdir(exist_ok=True, mode=0o700)
    path.replace(folder / "revoked" / f"{sha256}-{time.time_ns()}.json")
    (folder / f"{sha256}.cohort").unlink(missing_ok=True)
    return True


def is_revoked(folder: Path, study: Study) -> bool:
    """Whether a yes to this study was taken back."""
    return any((folder / "revoked").glob(f"{study.sha256}-*.json"))


def rejection(folder: Path, study: Study) -> Rejection | None:
    """The no to exactly this study, where one was said; a damaged file is a no without a name."""
    path = folder / REJECTED / f"{study.sha256}.json"
    if not path.exists():
        return None
    try:
        return Rejection.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return Rejection()


def approvals(folder: Path) -> list[Approval]:
    """Every approval of this site; a damaged file is none."""
    return [approval for _, approval in standing(folder)]


def standing(folder: Path) -> list[tuple[Kept, Approval]]:
    """The approvals that weren't taken back."""
    return [found for path in sorted(folder.glob("*.json")) if (found := _read(path)) is not None]


def approved_before(folder: Path, name: str) -> list[tuple[Kept, Study]]:
    """Every version of a study that was ever approved here, whether it still is or not; the newest last."""
    return [pair for pair in ever_approved(folder) if pair[1].name == name]


def ever_approved(folder: Path) -> list[tuple[Kept, Study]]:
    """All that was ever approved here and is still on record, taken back or not; the newest last."""
    paths = [*folder.glob("*.json"), *(folder / "revoked").glob("*.json")]
    found = [(kept, parse_study(kept.study)) for path in paths if (kept := _whole(path)) is not None]
    return sorted(found, key=lambda pair: pair[0].approved_at)


def find(folder: Path, study: Study) -> Kept | None:
    """The approval of exactly this content, whether it still holds or not."""
    found = _read(folder / f"{study.sha256}.json")
    return found[0] if found else None


def is_approved_quickly(folder: Path, study: Study) -> bool:
    """Whether the approval that was checked when the task came in is still there; before every batch."""
    return (folder / f"{study.sha256}.json").exists()


def _read(path: Path) -> tuple[Kept, Approval] | None:
    """An approval, or None unless the file is whole and its name is the hash of the study in it."""
    kept = _whole(path)
    if kept is None:
        return None
    approval = _line(parse_study(kept.study), kept)
    return (kept, approval) if path.stem == approval.study_sha256 else None


def _whole(path: Path) -> Kept | None:
    try:
        kept = Kept.model_validate(json.loads(path.read_text(encoding="utf-8")))
        parse_study(kept.study, path.name)
    except (OSError, ValueError, ValidationError, RecursionError, ConfigError):
        return None
    return kept


def snapshot(folder: Path, terms: Terms) -> frozenset[str]:
    """The cases that were there when the study was approved. Raises RefusedByPolicy where the list was
    changed.
    """
    try:
        marks = (folder / f"{terms.study_sha256}.cohort").read_text(encoding="ascii").split("\n")
    except (OSError, UnicodeDecodeError):
        marks = []
    if _digest([mark for mark in marks if mark]) != terms.cohort_sha256:
        raise RefusedByPolicy(
            "the snapshot of the approved cohort was changed", hint="approve again", reason="ALTERED_APPROVAL"
        )
    return frozenset(marks)


def signers_of(kept: Kept) -> Iterator[str]:
    """Fingerprints of the keys under an approval. Raises RefusedByPolicy where a signature doesn't hold."""
    for mark in kept.marks:
        if kept.terms is None or not mark.holds(kept.terms):
            raise RefusedByPolicy(
                f"the signature of {mark.by} under the approval doesn't hold; it was changed since",
                hint="revoke it, then approve again",
                reason="ALTERED_APPROVAL",
            )
        yield fingerprint(mark.key)
