"""Two reporting checklists, filled in where a run knows the answer: CLAIM 2024 and TRIPOD+AI.

Tejani AS et al., Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update, Radiol Artif
Intell 2024;6:e240300. Collins GS et al., TRIPOD+AI statement, BMJ 2024;385:e078378. The numbers are theirs,
the words are ours; read the originals before you hand one in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedai.cohort_rules import CohortRules
from fedai.outline_checklists import answers_of_outlines
from fedai.outline_results import OutlineComparison
from fedai.record import is_early
from fedai.results import FEWEST, Comparison
from fedai.selection import Selection
from fedai.tables import Table

Json = Mapping[str, Any]
FOR_AUTHORS = "for the authors"
Item = tuple[str, str, str]  # number, what it asks for, whose answer answers it

CLAIM: tuple[Item, ...] = (
    ("1", "Title or abstract names the kind of AI", ""),
    ("2", "Structured abstract", ""),
    ("3", "Background, intended use and role", "purpose"),
    ("4", "Aims and hypotheses", ""),
    ("5", "Prospective or retrospective", ""),
    ("6", "Goal of the study", "purpose"),
    ("7", "Sources of the data", "sources"),
    ("8", "Who was included and excluded", "eligibility"),
    ("9", "Preprocessing", "preprocessing"),
    ("10", "Parts of the data that were used", "eligibility"),
    ("11", "De-identification", "deidentification"),
    ("12", "Missing data", "missing"),
    ("13", "Image acquisition", ""),
    ("14", "How the reference standard was obtained", ""),
    ("15", "Why this reference standard", ""),
    ("16", "Where annotations come from", "annotations"),
    ("17", "Annotation of the test set", ""),
    ("18", "Variability between and within readers", "readers"),
    ("19", "How cases were assigned to partitions", "partition"),
    ("20", "Level at which partitions are disjoint", "disjoint"),
    ("21", "Intended size of the test set", ""),
    ("22", "The model: input, layers, output", "network"),
    ("23", "Software and versions", "software"),
    ("24", "First values of the parameters", "initial"),
    ("25", "Training: augmentation, hyperparameters, number of models", "training"),
    ("26", "How the final model was chosen", "selection"),
    ("27", "Ensembling", "ensembling"),
    ("28", "Measures of performance", "measures"),
    ("29", "Uncertainty and significance", "uncertainty"),
    ("30", "Robustness or sensitivity analysis", "sites"),
    ("31", "Explainability", ""),
    ("32", "Evaluation on internal data", "internal"),
    ("33", "Testing on external data", "external"),
    ("34", "Registration", ""),
    ("35", "Numbers included and excluded", "flow"),
    ("36", "Characteristics of cases in each partition", "characteristics"),
    ("37", "Performance with uncertainty", "performance"),
    ("38", "Diagnostic performance and its precision", "performance"),
    ("39", "Analysis of failures", "failures"),
    ("40", "Limitations", "limitations"),
    ("41", "Implications for practice", ""),
    ("42", "Protocol or further technical details", "protocol"),
    ("43", "Availability of software, model and data", "availability"),
    ("44", "Funding and role of funders", "funding"),
)
TRIPOD: tuple[Item, ...] = (
    ("1", "Title: development or evaluation, population, outcome", ""),
    ("2", "Abstract (TRIPOD+AI for Abstracts)", ""),
    ("3a", "Healthcare context and rationale", "purpose"),
    ("3b", "Target population and intended users", ""),
    ("3c", "Known health inequalities", ""),
    ("4", "Objectives", ""),
    ("5a", "Sources of data and why", "sources"),
    ("5b", "Dates of the data", ""),
    ("6a", "Setting: number and place of centres", "sources"),
    ("6b", "Eligibility", "eligibility"),
    ("6c", "Treatments received", ""),
    ("7", "Preparation of the data", "preprocessing"),
    ("8a", "Outcome and how it was assessed", "outcome"),
    ("8b", "Who assessed it", ""),
    ("8c", "Blinding of the assessment", ""),
    ("9a", "Choice of predictors", "predictors"),
    ("9b", "Definition of predictors", "predictors"),
    ("9c", "Who assessed predictors", "predictors"),
    ("10", "Sample size", ""),
    ("11", "Missing data", "missing"),
    ("12a", "How data were used: development, evaluation", "partition"),
    ("12b", "How predictors were handled", "preprocessing"),
    ("12c", "Type of model and how it was built", "training"),
    ("12d", "Differences between clusters", "sites"),
    ("12e", "Measures of performance and comparison", "measures"),
    ("12f", "Updating of the model", "updating"),
    ("12g", "How predictions were computed", "output"),
    ("13", "Class imbalance", "imbalance"),
    ("14", "Fairness", "characteristics"),
    ("15", "Output of the model and thresholds", "output"),
    ("16", "Differences between development and evaluation data", "internal"),
    ("17", "Ethical approval and consent", "ethics"),
    ("18a", "Funding", "funding"),
    ("18b", "Conflicts of interest", ""),
    ("18c", "Protocol", "protocol"),
    ("18d", "Registration", ""),
    ("18e", "Sharing of data", "availability"),
    ("18f", "Sharing of code", "availability"),
    ("19", "Involvement of patients and the public", ""),
    ("20a", "Flow of participants", "flow"),
    ("20b", "Characteristics of participants", "characteristics"),
    ("20c", "Development against evaluation data", ""),
    ("21", "Numbers of participants and outcomes in each analysis", "flow"),
    ("22", "The whole model, for others to use", "availability"),
    ("23a", "Performance with intervals, also in groups", "performance"),
    ("23b", "Differences between clusters", "sites"),
    ("24", "Results of updating", "updating"),
    ("25", "Interpretation", ""),
    ("26", "Limitations", "limitations"),
    ("27a", "Poor or missing input in use", ""),
    ("27b", "What users need to do", ""),
    ("27c", "Next steps", ""),
)


def checklists(record: Json, comparison: Comparison | OutlineComparison) -> tuple[Table, Table]:
    """Item, what it asks for, answer or "for the authors"."""
    known = answers(record, comparison)
    claim, tripod = (
        Table(title, ("Item", "Asks for", "Answer"), tuple(_row(item, known) for item in items))
        for title, items in (("CLAIM 2024", CLAIM), ("TRIPOD+AI", TRIPOD))
    )
    return claim, tripod


def _row(item: Item, known: Mapping[str, str]) -> tuple[str, str, str]:
    number, asks, key = item
    return number, asks, known.get(key) or FOR_AUTHORS


def answers(record: Json, comparison: Comparison | OutlineComparison) -> dict[str, str]:
    """What this run can say, by the keys of the items; empty where the record lacks it."""
    study = record.get("study", {})
    return {
        **_of_data(record, study),
        **_of_model(record, study),
        **_of_evaluation(record),
        **(
            answers_of_outlines(record, comparison)
            if isinstance(comparison, OutlineComparison)
            else _of_scores(comparison)
        ),
        **_of_governance(study),
    }


def _of_data(record: Json, study: Json) -> dict[str, str]:
    sites, size = list(record.get("cohorts", {})), study.get("preprocessing", {})
    asked = CohortRules.model_validate(study.get("cohort", {})).words
    shape = " x ".join(map(str, size.get("image_size", []))) or "the study's size"
    return {
        "sources": f"{len(sites)} sites ({', '.join(sites)}); patients, dates and scanners: for the authors.",
        "eligibility": f"Labelled images ({asked}) with a label of the study; exclusions by reason are "
        "under “Which images were used”.",
        "preprocessing": f"Percentile window and resizing to {shape}, then mean 0 and standard deviation 1.",
        "deidentification": "At each site, DICOM Basic Profile, before anything else reads an image.",
        "missing": "Images without a label or whose pixels can't be read are left out and counted.",
        "partition": "At random by a hash of the pseudonym, stratified by label, within each site, before "
        "training.",
        "disjoint": "Patient, within a site. One patient at two sites can't be told.",
        "flow": "Under “Which images were used”.",
        "predictors": "The pixels of one image alone." if record else "",
        "characteristics": "",
    }


def _of_model(record: Json, study: Json) -> dict[str, str]:
    network, training = study.get("network", {}), study.get("training", {})
    if not training:
        return {}
    balanced = training.get("loss", {}).get("balanced")
    return {
        "network": f"{network.get('name')}: one grey image in, a score for each class out; see the study.",
        "software": "Under “Methods”, with versions.",
        "initial": f"At random, seed {training.get('seed')}, the same at every site.",
        "training": f"{_recipe(study, training)} {len(record.get('models', []))} models were judged.",
        "selection": _selection(record, training),
        "ensembling": "None.",
        "updating": "None after training.",
        "imbalance": "Balanced weights in the loss." if balanced else "Not treated.",
    }


def _selection(record: Json, training: Json) -> str:
    chosen, rounds = record.get("chosen") or {}, len(record.get("rounds") or [])
    by = str(chosen.get("by") or training.get("checkpoint", {}).get("by", "validation_loss"))
    measure = {"validation_auroc": "AUROC", "validation_dice": "Dice"}.get(by, "loss")
    if chosen.get("is_best"):
        told = (
            f"By rule fixed beforehand: of {chosen['last']} rounds' models that of round {chosen['round']}, "
            f"with the best {measure} ({chosen['value']:.4f}) on {chosen['cases']} validation images of "
            f"{', '.join(chosen['sites'])}."
        )
    elif chosen:
        told = "The last round's: the best was to be chosen, but no two could be compared on the same images."
    else:
        told = "The last round's, as fixed beforehand; no choice by any score."
    if is_early(record):
        told += (
            f" Training ended after {rounds} of {training['rounds']} rounds, by the {measure} on validation "
            "images. Local-only models were trained for the epochs of all rounds."
        )
    return told + (" No test image had a part in it." if chosen or is_early(record) else "")


def _recipe(study: Json, training: Json) -> str:
    optimizer, loss = training.get("optimizer", {}), training.get("loss", {})
    drawn = Selection.model_validate(study.get("rounds", {}).get("selection", {}))
    who = "" if drawn.by == "all" else f" in each round {drawn.words};"
    augmented = ", ".join(t.get("name", "") for t in training.get("augmentation", [])) or "none"
    return (
        f"{study.get('strategy', {}).get('name', 'FedAvg')}, {training.get('rounds')} rounds of "
        f"{training.get('local_epochs')} local epochs,{who} batches of {training.get('batch_size')}, "
        f"{optimizer.get('name')} at {optimizer.get('learning_rate')}, {loss.get('name')}; "
        f"augmentation: {augmented}."
    )


def _of_evaluation(record: Json) -> dict[str, str]:
    absent = ", ".join(record.get("without", []))
    return {
        "internal": "Test patients of the same sites, held out before training.",
        "external": f"At {absent}, which took no part in training."
        if absent
        else "None: every test site took part in training.",
        "limitations": "What was not measured is listed; further ones: for the authors.",
        "protocol": f"The study file, SHA-256 {record.get('study_hash', '')}.",
        "availability": "fedai is open source; the coordinator has the model; images stay at the sites.",
    }


def _of_scores(comparison: Comparison) -> dict[str, str]:
    """Of a classification."""
    several = len(comparison.sites) > 1
    return {
        "measures": "AUROC, AUPRC, sensitivity, specificity, Brier score, calibration, net benefit; paired "
        f"differences against {comparison.against}, McNemar's test.",
        "uncertainty": "95% intervals with patients as the unit; none from fewer than "
        f"{FEWEST} patients on a side. p adjusted by Holm's method.",
        "sites": "By site, worst site, random effects over sites, matrix of sites." if several else "",
        "performance": "Under “How well each model does”.",
        "output": f"A score for each class; called positive from {comparison.threshold:g} on.",
    }


def _of_governance(study: Json) -> dict[str, str]:
    purpose = study.get("purpose", {})
    if not isinstance(purpose, dict):
        return {"purpose": str(purpose)}
    numbers = [f"{one.get('board')} {one.get('number')}" for one in purpose.get("ethics", [])]
    return {
        "purpose": str(purpose.get("statement", "")),
        "ethics": ", ".join(numbers),
        "funding": ", ".join(purpose.get("sponsors", [])),
    }
