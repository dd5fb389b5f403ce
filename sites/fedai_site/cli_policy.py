"""`fedai site policy | inbox | review | approve | reject | revoke | purge`: what the hospital allows."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedai.cli.output import JsonOption, emit, when

if TYPE_CHECKING:
    from fedai_site.home import SiteHome

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)

Home = Annotated[Path, typer.Argument(help="The site's home folder.", metavar="HOME")]
StudyFile = Annotated[
    Path, typer.Argument(help="The study file; its signature lies beside it.", metavar="STUDY")
]


@app.command()
def policy(
    home: Home,
    file: Annotated[Path | None, typer.Argument(help="A new policy for the home.", metavar="FILE")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the home's policy, or check FILE and put it in its place. Approvals under another policy end."""
    import yaml

    from fedai_site.home import open_home
    from fedai_site.policy import read_policy

    path = open_home(home).rules
    if file is not None:
        _install(file, path)
    found = read_policy(path)
    if found is None:
        emit(
            {"policy": None}, as_json=as_json, lines=["no policy.yaml: an approval is all that is asked for"]
        )
        return
    rules = found.model_dump(mode="json")
    lines = [f"# hash {found.sha256}", yaml.safe_dump(rules, sort_keys=False, allow_unicode=True).rstrip()]
    emit({"policy_hash": found.sha256, "policy": rules}, as_json=as_json, lines=lines)


def _install(file: Path, path: Path) -> None:
    from fedai.yamlfile import load
    from fedai_site.policy import Policy

    load(file, Policy)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(file.read_bytes())
    partial.replace(path)


@app.command()
def review(home: Home, study: StudyFile, as_json: JsonOption = False) -> None:
    """The study in words, what changed since the last version approved here, its cohort, and each rule."""
    from fedai.signatures import read_signature
    from fedai.study import read_study
    from fedai_site.home import open_home
    from fedai_site.review import review as look
    from fedai_site.review import review_lines

    facts = look(open_home(home), read_study(study), read_signature(study))
    emit(facts, as_json=as_json, lines=review_lines(facts))


@app.command()
def approve(home: Home, study: StudyFile,
            by: Annotated[str | None, typer.Option(help="Who says yes; else this account's name.")] = None,
            key: Annotated[Path | None, typer.Option(help="Your private key, from `fedai study key`; else "
                           "keys/engineer.key of the home, made at first use.", metavar="KEY")] = None,
            as_json: JsonOption = False) -> None:  # fmt: skip
    """Sign a yes to exactly this study. Any change of it, of the policy or of the release needs a new one."""
    from fedai.errors import ConfigError
    from fedai.signatures import read_signature
    from fedai.study import read_study
    from fedai_site import requests
    from fedai_site.home import open_home
    from fedai_site.overview import cohort_warnings

    if by is not None and not by.strip():
        raise ConfigError("--by is empty", hint="give the name of who says yes")
    who = getpass.getuser() if by is None else by.strip()
    site, read = open_home(home), read_study(study)
    told = _approve(site, read, read_signature(study), who, key)
    requests.keep(site, read, study)
    lines = [
        f"approved {told['study_name']} version {told['version']} by {told['approved_by']}",
        f"hash     {told['study_sha256']}",
        f"key      {told['fingerprint']}",
        f"until    {when(told['expires']) or 'it is revoked'}",
    ]
    if told["waits_for_second"]:
        lines.append("next: a second person approves it likewise")
    lines += cohort_warnings(told["cohort"], str(home))
    emit(told, as_json=as_json, lines=lines)


def _approve(site: SiteHome, study: Any, signature: Any, by: str, key: Path | None) -> dict[str, Any]:
    from datetime import UTC, datetime

    from fedai.signatures import fingerprint, public_key, read_key, write_key
    from fedai.wire import MINIMUM_CELL
    from fedai_site import approvals
    from fedai_site import policy as rules
    from fedai_site.cohort import select
    from fedai_site.overview import cohort_facts

    rules.check_named(study, site.settings.name)
    rules.check_signature(study, signature)
    found, now = rules.read_policy(site.rules), datetime.now(UTC)
    if found is not None:
        rules.check_clauses(list(rules.floor(found)), study)
    cohort = select(site.folder, study, consent_required=site.settings.consent_required)
    if found is not None:
        patients = approvals.training_patients(cohort)
        rules.check_clauses(rules.clauses(found, study, signature, patients, now.date()), study)
    if key is None and not site.engineer_key.exists():
        write_key(site.engineer_key)
    file = key or site.engineer_key
    print_ = fingerprint(public_key(read_key(file)))
    rules.check_approver(found, print_)
    terms = approvals.terms_of(study, found, cohort, now)
    approval = approvals.sign_approval(site.approvals, study, by, file, terms, cohort, signature)
    waits = bool(found and found.two_persons and approval.signatures < 2)
    least = max(study.cohort.minimum_patients, found.minimum_cell if found else MINIMUM_CELL)
    counted = {**cohort_facts(cohort), "training_patients_wanted": least}
    return {**vars(approval), "fingerprint": print_, "waits_for_second": waits, "cohort": counted}


STATES = {
    "NOT_APPROVED": "waiting",
    "SECOND_APPROVAL": "waiting for a second person",
    **{state: state.lower() for state in ("APPROVED", "REJECTED", "REVOKED", "EXPIRED")},
}


def _said(request: Any) -> str:
    """What became of a study, in words; another code says why a yes doesn't hold."""
    said = STATES.get(request.state, f"refused as {request.state}")
    by = f" by {request.by}" if request.by and request.state in ("APPROVED", "REJECTED") else ""
    until = f" until {when(request.until)}" if request.until and request.state == "APPROVED" else ""
    return f"{said}{by}{until}{f': {request.why}' if request.why else ''}"


@app.command()
def inbox(
    home: Home,
    study: Annotated[
        Path | None, typer.Argument(help="A study file to put there, with its signature.", metavar="STUDY")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The studies that were asked of this site, by a run or by you, or approved, and what became of each."""
    from fedai.cli.output import table
    from fedai.study import read_study
    from fedai_site import requests
    from fedai_site.home import open_home

    site = open_home(home)
    if study is not None:
        requests.keep(site, read_study(study), study)
    found = requests.listed(site)
    rows = [(f"{one.study} {one.version}", _said(one), when(one.since), one.path) for one in found]
    lines = table(("study", "state", "since", "file"), rows) if rows else ["no study was asked for"]
    if any(one.state == "NOT_APPROVED" for one in found):
        lines.append(f"next: fedai site review {home} FILE, then approve or reject it")
    emit({"requests": [vars(one) for one in found]}, as_json=as_json, lines=lines)


@app.command()
def reject(
    home: Home,
    study: StudyFile,
    why: Annotated[str, typer.Option(help="The reason, for your colleagues; it stays here.")],
    by: Annotated[str | None, typer.Option(help="Who says no; else this account's name.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say no to exactly this study; a yes to it ends. Approving it later takes the no away."""
    from fedai.study import read_study
    from fedai_site import requests
    from fedai_site.home import open_home

    site, read = open_home(home), read_study(study)
    requests.reject(site, read, by or getpass.getuser(), why)
    requests.keep(site, read, study)
    emit(
        {"study_hash": read.sha256, "state": "REJECTED", "why": why},
        as_json=as_json,
        lines=[f"{read.name} version {read.version} is rejected"],
    )


@app.command()
def revoke(home: Home, study: StudyFile, as_json: JsonOption = False) -> None:
    """Take a yes back; a run in progress stops here before its next batch."""
    from fedai.study import read_study
    from fedai_site import approvals
    from fedai_site.home import open_home

    read = read_study(study)
    found = approvals.revoke(open_home(home).approvals, read.sha256)
    lines = [f"{read.name} {'is revoked' if found else 'was not approved'}"]
    emit({"study_hash": read.sha256, "revoked": found}, as_json=as_json, lines=lines)


@app.command()
def purge(
    home: Home,
    study: Annotated[
        Path | None, typer.Argument(help="A study that is over; its file.", metavar="[STUDY]")
    ] = None,
    expired: Annotated[
        bool, typer.Option("--expired", help="What the policy's `retention` says is kept too long.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --expired: only say what is due.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete what was kept for a study, or too long, search for it, and give a signed receipt."""
    from fedai.errors import ConfigError
    from fedai_site.home import open_home

    if (study is not None) == expired or (dry_run and not expired):
        raise ConfigError("give STUDY or --expired; --dry-run goes with --expired",
                          hint="fedai site purge --help")  # fmt: skip
    site = open_home(home)
    if study is not None:
        _purge_study(site, study, as_json)
    else:
        _purge_expired(site, dry_run, as_json)


def _purge_expired(site: SiteHome, dry_run: bool, as_json: bool) -> None:
    from fedai_site.expiry import due, purge_expired

    found = due(site)
    made: list[str] = []
    while not dry_run and (receipt := purge_expired(site)):
        made.append(str(receipt))
    said = [f"{count} files of {kind}" for kind, count in found.counts().items()]
    lines = [f"{'due' if dry_run else 'deleted'}       {', '.join(said) or 'nothing'}"]
    facts = {"due": found.counts(), "dry_run": dry_run, "receipts": made}
    emit(facts, as_json=as_json, lines=[*lines, *(f"receipt   {path}" for path in made)])


def _purge_study(site: SiteHome, study: Path, as_json: bool) -> None:
    from fedai.study import read_study
    from fedai_site.agent import alone
    from fedai_site.purge import purge as delete
    from fedai_site.receipts import verify

    read = read_study(study)
    with alone(site.folder):
        receipt = delete(site, read)
    facts = verify(receipt, site.folder / "keys" / "receipts.pub")
    deleted, searched = facts["deleted"], facts["searched"]
    lines = [
        f"deleted   {deleted['files']} files, splits of {deleted['splits_of_patients']} patients",
        f"searched  {searched['files']} files, {searched['bytes']} bytes: nothing left",
        f"receipt   {receipt}",
    ]
    emit({"file": str(receipt), **facts}, as_json=as_json, lines=lines)
