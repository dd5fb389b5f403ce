"""Studies that were asked of this site: what an engineer put there, and what a run asked for unapproved.

`requests/NAME-VERSION-HASH.json` holds a study's canonical JSON, which every command takes as a study file;
its signature, where one came, lies beside it. A no to a study lies in `approvals/rejected/`.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedai.errors import ConfigError, RefusedByPolicy
from fedai.signatures import signature_file
from fedai.study import Study, parse_study
from fedai.yamlfile import MAXIMUM_BYTES
from fedai_site import approvals
from fedai_site.home import SiteHome
from fedai_site.permit import permit

MOST = 50  # a server that makes up studies fills no disk
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One study that waits or was decided. `state`: APPROVED, or why a run of it is refused now. `path`: its
    file, empty where it isn't in `requests`. `by`: who said yes or no. `until`: when a yes ends.
    """

    path: str
    study: str
    version: int
    study_hash: str
    state: str
    since: str
    by: str = ""
    why: str = ""
    until: str = ""


def keep(home: SiteHome, study: Study, file: Path | None = None) -> Path:
    """Put a study where the engineer sees it, with the signature beside `file`; one that is there stays."""
    folder = home.folder / "requests"
    folder.mkdir(exist_ok=True, mode=0o700)
    path = folder / f"{study.name}-{study.version}-{study.sha256[:12]}.json"
    if not path.exists():
        path.write_text(study.canonical(), encoding="utf-8")
    if file and file.resolve() != path.resolve() and signature_file(file).exists():
        shutil.copyfile(signature_file(file), signature_file(path))
    return path


def note(home: SiteHome, study: Study) -> None:
    """In the agent: a run asked for a study that it may not have, so that the engineer learns of it."""
    try:
        decided = {path.stem[:12] for path in home.approvals.rglob("*.json")}
        there = sum(path.stem[-12:] not in decided for path in _kept(home.folder / "requests"))
        if there >= MOST or len(study.canonical()) > MAXIMUM_BYTES:
            log.warning("the study %s was asked for; %d are there, it is not kept", study.sha256[:12], there)
            return
        keep(home, study)
    except OSError as error:
        log.warning("the study %s was asked for and can't be kept: %s", study.sha256[:12], error.strerror)


def _kept(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob("*.json"))


def listed(home: SiteHome) -> list[Request]:
    """Every study in `requests`, and what was approved here without lying there; a damaged file is none."""
    found: dict[str, Request] = {}
    for path in _kept(home.folder / "requests"):
        try:
            study = parse_study(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ConfigError):
            continue
        since = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
        found[study.sha256] = _request(home, study, str(path), since)
    for kept, study in approvals.ever_approved(home.approvals):
        found.setdefault(study.sha256, _request(home, study, "", kept.approved_at))
    return list(found.values())


def _request(home: SiteHome, study: Study, path: str, since: str) -> Request:
    no, yes = approvals.rejection(home.approvals, study), approvals.find(home.approvals, study)
    by, why, until = (no.by, no.why, "") if no else ("", "", "")
    if yes is not None:
        by, until = yes.approved_by, yes.terms.expires if yes.terms else ""
    state = state_of(home, study)
    return Request(path, study.name, study.version, study.sha256, state, since, by, why, until)


def state_of(home: SiteHome, study: Study) -> str:
    """APPROVED, or the reason code with which the agent would refuse a run now."""
    try:
        permit(home, study)
    except RefusedByPolicy as refusal:
        return refusal.reason
    return "APPROVED"


def reject(home: SiteHome, study: Study, by: str, why: str) -> None:
    """Say no to exactly this study: it is refused as REJECTED until somebody approves it. A yes ends."""
    approvals.revoke(home.approvals, study.sha256)
    folder = home.approvals / approvals.REJECTED
    folder.mkdir(exist_ok=True, mode=0o700)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    partial = folder / f"{study.sha256}.json.partial"
    partial.write_text(json.dumps({"by": by, "why": why, "at": at}, indent=1), encoding="utf-8")
    partial.replace(folder / f"{study.sha256}.json")
