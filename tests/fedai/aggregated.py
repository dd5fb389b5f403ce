"""Updates of invented sites, and what a strategy, or Flower's of the same name, makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, Metadata, MetricRecord, RecordDict

from fedai.aggregation import Gathering
from fedai.registry import SGD, AdamW
from fedai.strategies import Conditions, Rule, State
from fedai.weights import Entry, Layout, Weights

SIZE = 5
LAYOUT = Layout((Entry("w", (SIZE,), "float32"),), (Entry("s", (1,), "float32"),), (Entry("n", (), "int64"),))
Site = tuple[Weights, int, int] | tuple[Weights, int, int, dict[str, Any]]  # update, cases, steps, beside


def weights(parameters: Sequence[float], buffer: float = 0.0, counter: int = 0) -> Weights:
    return Weights(
        np.array(parameters, np.float32), np.array([buffer], np.float32), np.array([counter], np.int64)
    )


def gathered(rule: Rule, sites: Mapping[str, Site], optimizer: AdamW | SGD, among: int = 0) -> Gathering:
    """A round's updates, folded; of `among` sites that the run has, or of these."""
    found = rule.gather(Conditions(LAYOUT, optimizer, among or len(sites)))
    for name, (update, cases, steps, *beside) in sites.items():
        found.add(name, update, cases, steps, *beside)
    return found


def combined(rule: Rule, sites: Mapping[str, Site], optimizer: AdamW | SGD = AdamW()) -> Weights:  # noqa: B008
    """The one update that a round's updates become."""
    return gathered(rule, sites, optimizer).update()


def after(
    rule: Rule,
    start: Weights,
    rounds: Sequence[Mapping[str, Site]],
    optimizer: AdamW | SGD = AdamW(),  # noqa: B008
    among: int = 0,
) -> Weights:
    """The weights after some rounds."""
    return states_after(rule, start, rounds, optimizer, among)[0]


def states_after(
    rule: Rule,
    start: Weights,
    rounds: Sequence[Mapping[str, Site]],
    optimizer: AdamW | SGD = AdamW(),  # noqa: B008
    among: int = 0,
) -> tuple[Weights, State]:
    """The weights, and what the server remembers, after some rounds."""
    state: State = {}
    for number, sites in enumerate(rounds, start=1):
        found = gathered(rule, sites, optimizer, among)
        start, state = rule.step(start, found.update(), {**state, **found.noted()}, number)
    return start, state


def draw_rounds(sites: int = 7, rounds: int = 3, *, equal: bool = False) -> list[dict[str, Site]]:
    """Updates around a common direction; cases from 1 to 400, or 10 each where they must not count."""
    rng = np.random.default_rng(9)
    drawn = []
    for _ in range(rounds):
        common = rng.normal(0, 0.3, SIZE)
        drawn.append(
            {
                f"site-{number}": (
                    weights((common + rng.normal(0, 0.1, SIZE)).tolist()),
                    10 if equal else int(rng.integers(1, 400)),
                    int(rng.integers(1, 30)),
                )
                for number in range(sites)
            }
        )
    return drawn


def after_flowers(strategy: Any, start: Weights, rounds: Sequence[Mapping[str, Site]]) -> Any:
    """The parameters after some rounds of one of flwr.serverapp.strategy."""
    now = start.parameters
    for number, sites in enumerate(rounds, start=1):
        if hasattr(strategy, "tau"):
            strategy.current_arrays = {"w": now}
        elif hasattr(strategy, "server_momentum") or hasattr(strategy, "q"):
            strategy.current_arrays = ArrayRecord({"w": Array(now)})
        replies = [_reply(now + update.parameters, cases, rest) for update, cases, _, *rest in sites.values()]
        arrays, _ = strategy.aggregate_train(number, replies)
        now = arrays["w"].numpy()
    return now


def _reply(parameters: Any, cases: int, beside: Sequence[Mapping[str, Any]] = ()) -> Message:
    numbers = {name: float(values[0]) for arrays in beside for name, values in arrays.items()}
    metrics = MetricRecord({"num-examples": cases, **numbers})
    content = RecordDict({"arrays": ArrayRecord({"w": Array(parameters)}), "metrics": metrics})
    metadata = Metadata(
        run_id=1, message_id="m", src_node_id=2, dst_node_id=1, reply_to_message_id="q", group_id="",
        created_at=0.0, ttl=60, message_type="train",
    )  # fmt: skip
    return Message(content, metadata=metadata)
