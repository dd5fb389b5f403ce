"""A model card (Mitchell et al. 2019, doi:10.1145/3287560.3287596) of one model of an ended run, as far as
the run knows.

What only people can say is marked "for the authors"; nothing is invented.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedai.checklists import FOR_AUTHORS, answers
from fedai.compare import compare
from fedai.exports import Model, find_model
from fedai.outline_card import evaluation_of_outlines
from fedai.outline_results import compare_outlines
from fedai.outline_sections import LEFT, gaps_of_outlines
from fedai.record import final_words, read_judgement, read_outlines, read_record
from fedai.results import Comparison, ModelResults
from fedai.run_sections import gaps_of, privacy_facts
from fedai.subgroup_results import subgroups_of, variables_of, worst_subgroup
from fedai.subgroup_tables import WORDS
from fedai.tables import spell

Json = Mapping[str, Any]
Card = dict[str, dict[str, Any]]
NOT_A_DEVICE = "Diagnosis, triage or treatment of patients: it is for research and is no medical device."


def card_of(folder: Path, name: str) -> Card:
    """Section -> what is said under each head. Raises ConfigError where the run has no such model or no
    judgement.
    """
    model, record, outlines = find_model(folder, name), read_record(folder), read_outlines(folder)
    study = record["study"]
    if outlines is None:
        comparison = compare(read_judgement(folder))
        known = answers(record, comparison)
        evaluation = _evaluation(comparison.model(name), comparison, known)
        left, gaps = privacy_facts(study), gaps_of(record, bool(comparison.subgroups))
    else:
        outlined = compare_outlines(outlines)
        known = answers(record, outlined)
        evaluation = evaluation_of_outlines(name, outlined, known)
        left, gaps = LEFT, gaps_of_outlines(record, outlined)
    return {
        "Model details": _details(model, record, known),
        "Intended use": _intended(study, known),
        "Training data": _training_data(name, record, known),
        "Evaluation": evaluation or {"results": NOT_JUDGED},
        "Ethical considerations": {
            "what left the sites": list(left),
            "ethics": known.get("ethics") or FOR_AUTHORS,
        },
        "Caveats": {"not measured": gaps, "further ones": FOR_AUTHORS},
    }


NOT_JUDGED = "this model was not judged: only the run's own, local ones and references are"


def _details(model: Model, record: Json, known: Json) -> dict[str, Any]:
    study = record["study"]
    return {
        "model": model.name,
        **({"chosen": final_words(record)} if model.name == "federated" else {}),
        "sha256": model.sha256,
        "run": record["run"],
        "study": f"{study['name']} version {study['version']}",
        "study sha256": record["study_hash"],
        "network": known["network"],
        "training": known["training"],
        **_task(study["task"]),
        "input": known["preprocessing"],
        "output": known["output"],
        "trained": str(record.get("ended") or record.get("started") or ""),
        "versions": {site: dict(found) for site, found in record["versions"].items()},
        "licence": FOR_AUTHORS,
        "contact": FOR_AUTHORS,
    }


def _task(task: Json) -> dict[str, Any]:
    if task.get("kind") != "segmentation":
        return {"classes": list(task["classes"])}
    return {
        "task": "segmentation of 2D images",
        "structures": list(task["structures"]),
        "tolerance of NSD": f"{task['tolerance_mm']:g} mm",
    }


def _intended(study: Json, known: Json) -> dict[str, Any]:
    purpose = study["purpose"] if isinstance(study["purpose"], dict) else {}
    interest = "not declared" if not purpose else "yes" if purpose["commercial_interest"] else "no"
    return {
        "purpose": known.get("purpose") or FOR_AUTHORS,
        "users": list(purpose.get("model_users", [])) or FOR_AUTHORS,
        "commercial interest": interest,
        "data use terms": study.get("data_use") or "not declared",
        "not for": NOT_A_DEVICE,
    }


def _training_data(name: str, record: Json, known: Json) -> dict[str, Any]:
    own = name.removeprefix("local:") if name.startswith("local:") else ""
    absent = record.get("without", [])
    cohorts = {s: facts for s, facts in record["cohorts"].items() if own in ("", s) and s not in absent}
    train = {site: facts["splits"]["train"] for site, facts in cohorts.items()}
    cases = {
        site: f"{facts['cases']} images of {facts['patients']} patients" for site, facts in train.items()
    }
    return {
        "cases": "for its makers: it is a reference" if name in record.get("references", {}) else cases,
        "asked for": known["eligibility"],
        "de-identification": known["deidentification"],
        "patients' characteristics": FOR_AUTHORS,
    }


def _evaluation(results: ModelResults | None, comparison: Comparison, known: Json) -> dict[str, Any]:
    if results is None:
        return {}
    single = len(comparison.tasks) == 1
    told: dict[str, Any] = {
        "cases": f"{results.pooled.cases} images of {results.pooled.patients} patients; {known['internal']}",
        "external": known["external"],
        "AUROC, all sites (95% CI)": spell(results.pooled.auroc),
        "AUROC by site (95% CI)": {site: spell(found.auroc) for site, found in results.sites.items()},
        "Brier score (95% CI)": spell(results.pooled.brier),
    }
    if single:
        only = results.pooled.classes[0]
        told["called positive from"] = f"a score of {comparison.threshold:g}, fixed beforehand"
        told |= {
            "sensitivity (95% CI)": spell(only.sensitivity),
            "specificity (95% CI)": spell(only.specificity),
        }
    told |= dict(_by_subgroup(results.name, comparison))
    return {**told, "how": f"{known['measures']} {known['uncertainty']}"}


def _by_subgroup(model: str, comparison: Comparison) -> Iterator[tuple[str, Any]]:
    for variable in variables_of(comparison):
        found = subgroups_of(comparison, variable, model)
        lowest = worst_subgroup(found)
        values = {level or "all": spell(result.auroc) for level, result in found.items()}
        yield (
            f"AUROC within sites by {WORDS.get(variable, variable)} (95% CI)",
            {**values, **({"worst subgroup": lowest[0]} if lowest else {})},
        )


def markdown(card: Card) -> str:
    """The card for people."""
    title = f"# {card['Model details']['model']} of {card['Model details']['run']}"
    return (
        "\n".join([title, *(line for head, facts in card.items() for line in _section(head, facts))]) + "\n"
    )


def _section(head: str, facts: Json) -> Iterator[str]:
    yield from ("", f"## {head}", "")
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield f"- {name}:"
            yield from (f"  - {key}: {_text(one)}" for key, one in value.items())
        elif isinstance(value, list) and any(len(str(one)) > 40 for one in value):
            yield f"- {name}:"
            yield from (f"  - {_text(one)}" for one in value)
        else:
            yield f"- {name}: {_text(value)}"


def _text(value: Any) -> str:
    """On one line, with nothing in it that Markdown or HTML would read."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    plain = " ".join(str(value).split())
    return "".join(f"\\{one}" if one in "\\`*_[]<>|#" else one for one in plain)
