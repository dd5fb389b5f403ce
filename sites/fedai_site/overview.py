"""What `fedai site status` tells: the agent, the catalogue, the approvals, the ledger, a study's cohort."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedai.cli.output import table, when
from fedai.ledger import Ledger
from fedai.study import read_study
from fedai_site import approvals
from fedai_site.catalogue import Catalogue
from fedai_site.cohort import Cohort, select
from fedai_site.expiry import due
from fedai_site.home import SiteHome, fingerprints
from fedai_site.inbox import INBOX, what_waits


def overview(home: SiteHome, study: Path | None = None) -> dict[str, Any]:
    """Facts for people and for `--json`; counts only."""
    facts: dict[str, Any] = {
        "site": home.settings.name,
        "server": home.settings.server.address,
        **fingerprints(home),
        "agent": agent_facts(home),
    }
    with Catalogue(home.catalogue) as catalogue:
        facts["files"] = dict(sorted(catalogue.states().items()))
    facts["inbox"] = what_waits(home.folder / INBOX)[0]
    facts["due"] = due(home).counts()
    facts["approvals"] = [vars(approval) for approval in approvals.approvals(home.approvals)]
    last = Ledger(home.ledger).last()
    facts["ledger"] = {"lines": last["seq"] if last else 0, "head": last["hash"] if last else ""}
    if study is not None:
        facts["cohort"] = _cohort(home, study)
    return facts


def agent_facts(home: SiteHome) -> dict[str, Any]:
    """What the agent said last, by `status.json`, and whether it still runs."""
    try:
        said: dict[str, Any] = dict(json.loads(home.status.read_text(encoding="utf-8")))
        state, pid = str(said["state"]), int(said["pid"])
    except (OSError, ValueError, TypeError, KeyError):
        return {"state": "never started"}
    if state != "stopped" and not _is_alive(pid):
        said["state"] = "ended without a word"
    return said


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _cohort(home: SiteHome, study: Path) -> dict[str, Any]:
    return cohort_facts(
        select(home.folder, read_study(study), consent_required=home.settings.consent_required)
    )


def cohort_facts(cohort: Cohort) -> dict[str, Any]:
    """What a study uses here and what it doesn't, in numbers."""
    splits = {
        name: {"patients": len({case.patient for case in cases}), "cases": len(cases)}
        for name, cases in cohort.splits.items()
    }
    return {"flow": cohort.flow, "excluded": cohort.excluded, "splits": splits}


def cohort_warnings(facts: dict[str, Any], home: str) -> list[str]:
    """For who says yes to a study: that it would use nothing here, or too little to train, and why.

    `facts`: `cohort_facts`, with the `training_patients_wanted`.
    """
    found, used = facts["flow"]["found"], facts["flow"]["used"]
    patients, wanted = facts["splits"]["train"]["patients"], facts["training_patients_wanted"]
    why = ", ".join(f"{count} {reason}" for reason, count in facts["excluded"].items())
    if not found:
        return [
            "warning: there are no data in this home yet, so a run would use no case of this site",
            f"next: fedai site add-data {home} FOLDER --labels LABELS.csv",
        ]
    if not used:
        return [
            f"warning: a run would use no case of this site: of {found} images {why}",
            f"next: fedai site data stats {home} says what there is,",
            f"      fedai site review {home} STUDY what is asked for",
        ]
    if patients < wanted:
        return [
            f"warning: {patients} patients would train, a run needs {wanted}: it would be refused here",
            *([f"         left out: {why}"] if why else []),
        ]
    return []


def overview_lines(facts: dict[str, Any]) -> list[str]:
    """The same for a person."""
    agent = facts["agent"]
    rows = [
        ("site", facts["site"]),
        ("server", facts["server"]),
        ("agent.pub", facts["key_fingerprint"] or "unreadable"),
        ("ca.pem", facts["ca_fingerprint"] or "unreadable"),
        ("agent", f"{agent['state']}  {agent.get('text', '')}  {when(str(agent.get('at', '')))}".rstrip()),
        ("files", ", ".join(f"{count} {state}" for state, count in facts["files"].items()) or "none yet"),
        *((("inbox", f"{facts['inbox']} originals"),) if facts["inbox"] else ()),
        *((("kept too long", told(facts["due"])),) if facts["due"] else ()),
        ("ledger", f"{facts['ledger']['lines']} lines"),
        *(("approved", _approved(approval)) for approval in facts["approvals"]),
    ]
    if "cohort" in facts:
        cohort = facts["cohort"]
        rows += [("cohort", ", ".join(f"{count} {step}" for step, count in cohort["flow"].items()))]
        rows += [("excluded", f"{count} {why}") for why, count in cohort["excluded"].items()]
        rows += [
            (name, f"{part['patients']} patients, {part['cases']} cases")
            for name, part in cohort["splits"].items()
        ]
    return table(("", ""), rows)[1:]


def told(due: Mapping[str, int]) -> str:
    """Counts of files that are due, in words."""
    return ", ".join(f"{count} files of {kind}" for kind, count in due.items())


def _approved(approval: dict[str, Any]) -> str:
    study = f"{approval['study_name']} version {approval['version']} {approval['study_sha256'][:12]}"
    until = f", until {when(approval['expires'])}" if approval["expires"] else ""
    return f"{study} by {approval['approved_by']}{until}"
