"""Numbers in Prometheus' text format (version 0.0.4), for the server's page and a site's textfile.

A line for each sample, `#` lines before each family, see
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
Labels = Mapping[str, str]


@dataclass
class Family:
    """One metric: a name (counters end in `_total`), what it means in one sentence, its samples."""

    name: str
    text: str
    kind: Literal["gauge", "counter"] = "gauge"
    samples: list[tuple[Labels, float]] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        """One more sample."""
        self.samples.append((labels, value))


def single(name: str, text: str, value: float) -> Family:
    """A gauge of one sample without labels."""
    return Family(name, text, samples=[({}, value)])


def page(families: Iterable[Family]) -> str:
    """All families that have samples, as text. Raises ValueError for a name that the format doesn't have."""
    return "".join(line + "\n" for family in families if family.samples for line in _lines(family))


def _lines(family: Family) -> Iterable[str]:
    if not NAME.fullmatch(family.name):
        raise ValueError(f"{family.name!r} can't name a metric")
    text = family.text.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {family.name} {text}"
    yield f"# TYPE {family.name} {family.kind}"
    for labels, value in family.samples:
        yield f"{family.name}{_labels(labels)} {_number(value)}"


def _labels(labels: Labels) -> str:
    wrong = [name for name in labels if not LABEL.fullmatch(name)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} can't name a label")
    told = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{told}}}" if told else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    """Whole numbers without a point, to the digit; `NaN`, `+Inf` and `-Inf` as the format has them."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
