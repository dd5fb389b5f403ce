"""The judgement of a segmentation's run as it rests at the server: every model's outlines at every site.

Two rounds, as of `fedai.judgement`: in the first each site answers one `OutlineScore` per model, in the
second one `OutlineLinks` of all models. Nothing is sent out in between: an outline needs no pool.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedai.errors import ConfigError, FederationError
from fedai.judgement import arrays_from_json, arrays_to_json
from fedai.outline_score import OutlineLinks, OutlineScore, outline_forms, outline_links_forms

Json = dict[str, Any]
FORMS = (*outline_forms(1).items(), *outline_links_forms(1, 1).items())
COUNTS = frozenset(name for name, (dtype, _) in FORMS if "int" in dtype)


@dataclass(frozen=True, eq=False)
class OutlineJudgement:
    """`scores`: site -> model -> OutlineScore. `links`: site -> OutlineLinks, entries as `models`. `marks`,
    `left_out`: as of `Judgement`.
    """

    models: tuple[str, ...]
    structures: tuple[str, ...]
    tolerance_mm: float
    scores: Mapping[str, Mapping[str, OutlineScore]]
    links: Mapping[str, OutlineLinks]
    marks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        scores = [score for by_model in self.scores.values() for score in by_model.values()]
        alike = [
            set(self.links) == set(self.scores),
            all(set(by_model) == set(self.models) for by_model in self.scores.values()),
            all(link.models == len(self.models) for link in self.links.values()),
            all(len(link.patients) == len(self.structures) for link in self.links.values()),
            all(len(score.found) == len(self.structures) for score in scores),
        ]
        if not all(alike):
            raise FederationError("the judgement's scores and links don't belong together")

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.scores)

    def merged(self, model: str) -> OutlineScore:
        """The model's score over all sites."""
        return functools.reduce(operator.add, [by_model[model] for by_model in self.scores.values()])

    def linked(self) -> OutlineLinks:
        """What links the models over all sites."""
        return functools.reduce(operator.add, self.links.values())

    def to_json(self) -> Json:
        """Plain JSON."""
        return {
            "task": "segmentation",
            "models": list(self.models),
            "structures": list(self.structures),
            "tolerance_mm": self.tolerance_mm,
            "scores": {
                site: {model: arrays_to_json(score.to_arrays()) for model, score in by_model.items()}
                for site, by_model in self.scores.items()
            },
            "links": {site: arrays_to_json(link.to_arrays()) for site, link in self.links.items()},
            "marks": {site: dict(marks) for site, marks in self.marks.items()},
            "left_out": dict(self.left_out),
        }

    @classmethod
    def from_json(cls, data: Json) -> OutlineJudgement:
        """The reverse of `to_json`. Raises ConfigError for anything else."""
        try:
            return cls(
                tuple(map(str, data["models"])),
                tuple(map(str, data["structures"])),
                float(data["tolerance_mm"]),
                {
                    site: {
                        m: OutlineScore.from_arrays(arrays_from_json(score, COUNTS))
                        for m, score in by_model.items()
                    }
                    for site, by_model in data["scores"].items()
                },
                {
                    site: OutlineLinks.from_arrays(arrays_from_json(link, COUNTS))
                    for site, link in data["links"].items()
                },
                {site: {str(k): str(v) for k, v in marks.items()} for site, marks in data["marks"].items()},
                {str(site): str(why) for site, why in data["left_out"].items()},
            )
        except (LookupError, TypeError, ValueError, OverflowError, AttributeError, FederationError):
            raise ConfigError(
                "not a judgement of this version of fedai",
                hint="was the file changed, or made by another version?",
            ) from None
