"""The study's rule on validation scores: when a run's rounds end early, and which checkpoint is judged.

Both follow from what is in the run database, whichever process asks (`fedai.choice`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fedai.checkpoint import checkpoint_sha256, load_checkpoint
from fedai.choice import chosen_of, compared, unbeaten, validations, why_early
from fedai.errors import FederationError
from fedai.study import Training
from fedai.validation import validation_facts
from fedai.weights import Weights
from fedai.wire import Reply
from fedai_server.rounds import absent_of
from fedai_server.runs import RunDatabase

if TYPE_CHECKING:
    from fedai_server.server_app import Conduct

VALIDATED, CHOSEN = "last_validated", "checkpoint_chosen"

log = logging.getLogger("fedai.server.run")


def ended_early(runs: RunDatabase, name: str, training: Training) -> str:
    """Why no further round begins, or nothing: by the rounds that have closed."""
    rule, by = training.early_stopping, training.checkpoint.by
    if rule is None:
        return ""
    rounds = [fact for _, _, fact in runs.facts(name, "round_closed")]
    leader = unbeaten(compared(validations(rounds, None, by)).values, by, rule)
    if leader is None or len(rounds) == training.rounds:
        return ""
    return why_early(leader, len(rounds), training.rounds, by)


def choose(run: Conduct) -> Weights:
    """The weights to be judged: the last round's, or of the study's choice, which is written down once.

    Raises FederationError where the chosen checkpoint is not the one that was written down.
    """
    training = run.study.training
    if not training.chooses_best:
        return run.weights
    known = [fact for _, _, fact in run.runs.facts(run.name, CHOSEN)]
    chosen = known[0] if known else _chosen(run)
    if not known:
        run.runs.add(run.name, CHOSEN, chosen)
    log.info("round %d is judged, %s", chosen["round"], chosen["why"])
    folder = run.registry / f"round-{chosen['round']:04d}"
    if checkpoint_sha256(folder) != chosen["checkpoint"]:
        raise FederationError(
            f"the checkpoint of round {chosen['round']} is not the one that the round closed with",
            hint=f"restore {folder} and start the study again",
        )
    return load_checkpoint(folder, run.layout)


def _chosen(run: Conduct) -> dict[str, Any]:
    rule = run.study.training.checkpoint
    rounds = [fact for _, _, fact in run.runs.facts(run.name, "round_closed")]
    checkpoints = {fact["number"]: fact["checkpoint"] for fact in rounds}
    last = max(checkpoints)
    found = chosen_of(validations(rounds, _last_validated(run, last), rule.by), rule, last)
    return {**found, "checkpoint": checkpoints[found["round"]], "last_checkpoint": checkpoints[last]}


def _last_validated(run: Conduct, last: int) -> dict[str, Any]:
    """What the training sites say of the last checkpoint on their validation cases: no round told of it."""
    known = [fact for _, _, fact in run.runs.facts(run.name, VALIDATED)]
    if known:
        return known[0]
    told: dict[str, dict[str, Any]] = {}

    def fold(site: str, reply: Reply) -> None:
        told[site] = validation_facts(reply.arrays, reply.metrics)

    asked = run.ask("validate", fold, sites=list(run.trainers), arrays=run.weights.arrays())
    fact = {"number": last, "validation": told, "absent": absent_of(asked)}
    run.runs.add(run.name, VALIDATED, fact)
    return fact
