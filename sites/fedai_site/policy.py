"""What this site allows. An approval is its yes to one study, by content hash, kept at the site alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedai.errors import ConfigError, RefusedByPolicy
from fedai.release import BUNDLE_SHA256
from fedai.study import Study, parse_study


@dataclass(frozen=True)
class Approval:
    """One line of `fedai site approvals`."""

    study_sha256: str
    study_name: str
    version: int
    approved_by: str
    approved_at: str


def approve(folder: Path, study: Study, by: str) -> Approval:
    """Record a yes to this exact study. Saying it twice changes nothing."""
    path = folder / f"{study.sha256}.json"
    before = _read(path)
    if before is not None:
        return before
    now = datetime.now(UTC).isoformat(timespec="seconds")
    kept = {"study": study.canonical(), "approved_by": by, "approved_at": now}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    partial.replace(path)
    return Approval(study.sha256, study.name, study.version, by, now)


def revoke(folder: Path, sha256: str) -> bool:
    """Take a yes back: a run of that study stops here before its next batch, and nothing more of it leaves.

    False where there was none.
    """
    path = folder / f"{sha256}.json"
    if not path.exists():
        return False
    path.unlink()
    return True


def approvals(folder: Path) -> list[Approval]:
    """Every approval of this site; a damaged file is none."""
    return [found for path in sorted(folder.glob("*.json")) if (found := _read(path)) is not None]


def is_approved(folder: Path, study: Study) -> bool:
    """True only while an approval of this exact content is on disk."""
    return _read(folder / f"{study.sha256}.json") is not None


def is_approved_quickly(folder: Path, study: Study) -> bool:
    """Whether the approval that was checked when the task came in is still there; before every batch."""
    return (folder / f"{study.sha256}.json").exists()


def check_bundle(bundle_sha256: str) -> None:
    """Raise RefusedByPolicy unless the run's app bundle is the code-free one of this very release."""
    if bundle_sha256 != BUNDLE_SHA256:
        raise RefusedByPolicy(
            "the run carries a bundle that is not this release's; it was not downloaded",
            hint="server and site must run the same release of fedai",
        )


def check_named(study: Study, site: str) -> None:
    """Raise RefusedByPolicy unless the study names this site."""
    if site not in study.sites:
        raise RefusedByPolicy(
            f"the study {study.name} doesn't name this site ({site})", hint="ask the coordinator"
        )


def check_study(folder: Path, study: Study, site: str) -> None:
    """Raise RefusedByPolicy unless this site approved exactly this study and the study names this site."""
    check_named(study, site)
    if not is_approved(folder, study):
        raise RefusedByPolicy(
            f"the study {study.name} {study.sha256[:12]} is not approved here",
            hint="read it, then `fedai site approve HOME STUDY.yaml`",
        )


def _read(path: Path) -> Approval | None:
    """An approval, or None unless the file is whole and its name is the hash of the study in it."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        study = parse_study(kept["study"], path.name)
        approval = Approval(
            study.sha256, study.name, study.version, str(kept["approved_by"]), str(kept["approved_at"])
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ConfigError):
        return None
    return approval if path.stem == approval.study_sha256 else None
