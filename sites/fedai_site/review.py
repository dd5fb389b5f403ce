"""A study as the site engineer should see it before saying yes: words, changes, counts, rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from fedai.cli.output import plain, table
from fedai.overview import EDGES
from fedai.signatures import StudySignature, fingerprint
from fedai.study import Purpose, Segmentation, Study
from fedai.wire import most_models
from fedai_site import approvals
from fedai_site.cohort import select
from fedai_site.home import SiteHome
from fedai_site.overview import cohort_facts
from fedai_site.policy import clauses, read_policy
from fedai_site.requests import state_of


def review(home: SiteHome, study: Study, signature: StudySignature | None) -> dict[str, Any]:
    """Facts for people and for `--json`; opens the catalogue, no image. Raises ConfigError for a wrong
    policy.yaml.
    """
    policy = read_policy(home.rules)
    cohort = select(home.folder, study, consent_required=home.settings.consent_required)
    patients, today = approvals.training_patients(cohort), datetime.now(UTC).date()
    found = clauses(policy, study, signature, patients, today) if policy else []
    before = [old for _, old in approvals.approved_before(home.approvals, study.name)]
    others = [old for old in before if old.sha256 != study.sha256]
    return {
        "study": study.name,
        "version": study.version,
        "study_hash": study.sha256,
        "words": dict(_words(study)),
        "signed_by": fingerprint(signature.key) if signature else "",
        "changes": changes(others[-1], study) if others else [],
        "compared_with": others[-1].version if others else None,
        "cohort": cohort_facts(cohort),
        "policy_hash": policy.sha256 if policy else "",
        "clauses": [vars(clause) for clause in found],
        "accepted": all(clause.holds for clause in found),
        "state": state_of(home, study),
    }


def _words(study: Study) -> Iterator[tuple[str, str]]:
    yield "is for", study.statement
    if study.data_use is not None:
        said = study.data_use.model_dump(mode="json", exclude_defaults=True)
        yield "uses data for", ", ".join(f"{name} {plain(value)}" for name, value in said.items())
    if isinstance(study.purpose, Purpose):
        yield from _declared(study.purpose)
    else:
        yield "declares", "nothing about commercial interest, sponsors or ethics numbers"
    training = study.training
    yield "sites", ", ".join(study.sites)
    task = study.task
    learned = task.structures if isinstance(task, Segmentation) else task.classes
    yield "learns", f"{task.kind}: {' / '.join(learned)}"
    rows, columns = study.preprocessing.image_size
    yield "from", study.cohort.words
    least = study.cohort.minimum_patients
    yield "as", f"{rows} x {columns} pixels, of at least {least} training patients"
    yield "network", study.network.name
    yield (
        "trains",
        f"{training.rounds} rounds of {training.local_epochs} epochs, batches of {training.batch_size}",
    )
    if study.overview:
        yield (
            "tells first",
            f"how many images are of which {', '.join(EDGES)}, in bins of a few patients at least",
        )
    alone = ", and a model on your data alone" if study.judgement.local_models else ""
    if study.judgement.subgroups:
        asked = [f"{name} ({', '.join(of)})" for name, of in study.judgement.levels.items()]
        yield "tells apart", f"test patients by {'; by '.join(asked)}, where your policy's `subgroups` has it"
    yield (
        "gets",
        f"{training.rounds} updates of up to {study.rounds.max_update_mb:g} MB each{alone}; "
        f"scores of up to {most_models(study)} models on your test cases, as histograms and counts",
    )


def _declared(purpose: Purpose) -> Iterator[tuple[str, str]]:
    yield "kind", purpose.kind or "not declared"
    yield "commercial interest", "yes" if purpose.commercial_interest else "no"
    yield "sponsors", ", ".join(purpose.sponsors) or "none named"
    yield "model users", ", ".join(purpose.model_users) or "not declared"
    for one in purpose.ethics:
        yield "ethics", f"{one.board} {one.number}, until {one.expires}"


def changes(before: Study, now: Study) -> list[tuple[str, str, str]]:
    """(place, value before, value now) of everything that differs, as JSON; empty where it wasn't there."""
    old, new = dict(_flat(json.loads(before.canonical()))), dict(_flat(json.loads(now.canonical())))
    places = [place for place in dict.fromkeys([*old, *new]) if old.get(place) != new.get(place)]
    return [(place, old.get(place, ""), new.get(place, "")) for place in places]


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _flat(part, f"{place}.{key}" if place else key)
    else:
        yield place, json.dumps(value, ensure_ascii=False)


def review_lines(facts: dict[str, Any]) -> list[str]:
    """The same for a person."""
    lines = [f"{facts['study']} version {facts['version']}, hash {facts['study_hash']}", ""]
    lines += table(("the study", ""), facts["words"].items())
    lines += ["", f"signed with key {facts['signed_by']}" if facts["signed_by"] else "not signed"]
    lines += ["", *_change_lines(facts), "", *_cohort_lines(facts["cohort"]), ""]
    if facts["clauses"]:
        rows = [("yes" if one["holds"] else "NO", one["reason"], one["said"]) for one in facts["clauses"]]
        lines += table(("keeps", "this site's rule", ""), rows)
    else:
        lines += ["this home has no policy.yaml: an approval is all that is asked for"]
    return [*lines, "", f"a run now: {facts['state']}"]


def _change_lines(facts: dict[str, Any]) -> list[str]:
    if facts["compared_with"] is None:
        return ["no other version of it was approved here"]
    return table((f"since version {facts['compared_with']}", "was", "is"), facts["changes"])


def _cohort_lines(cohort: dict[str, Any]) -> list[str]:
    rows = [("images", ", ".join(f"{count} {step}" for step, count in cohort["flow"].items()))]
    rows += [("excluded", f"{count} {why}") for why, count in cohort["excluded"].items()]
    rows += [
        (name, f"{part['patients']} patients, {part['cases']} cases")
        for name, part in cohort["splits"].items()
    ]
    return table(("your cohort", ""), rows)
