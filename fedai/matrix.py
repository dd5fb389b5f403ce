"""The generalization matrix: where a model was trained against where it is tested."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedai.results import FEDERATED, POOLED, Comparison, Measure, listed
from fedai.tables import Table, number, spell


@dataclass(frozen=True)
class Matrix:
    """AUROC (with several classes their mean) of each model, `trained` as named, at each site, and on all
    sites' cases. `without`: model -> the sites that its training left out."""

    measure: str
    trained: tuple[str, ...]
    tested: tuple[str, ...]
    cells: tuple[tuple[Measure, ...], ...]
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def is_marked(self, model: str, site: str) -> bool:
        """Whether a cell is special: a site's own model there, or a model of all others."""
        return is_own(model, site) or site in self.without.get(model, ())

    def to_json(self) -> dict[str, Any]:
        rows = zip(self.trained, self.cells, strict=True)
        return {
            "measure": self.measure,
            "tested_at": list(self.tested),
            "rows": [
                {
                    "model": name,
                    "without": list(self.without.get(name, ())),
                    "values": [cell.value for cell in cells],
                    "ci95": [listed(cell.ci95) for cell in cells],
                }
                for name, cells in rows
            ],
        }


def left_out_of(records: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Model -> the sites that its training left out, from the records of one run or of several by name."""
    start = {run: f"{run}/" if len(records) > 1 else "" for run in records}
    return {
        f"{start[run]}{FEDERATED}": tuple(record["without"])
        for run, record in records.items()
        if record.get("without")
    }


def matrix_of(comparison: Comparison, without: Mapping[str, tuple[str, ...]] = {}) -> Matrix:
    """Local-only models first, in the order of the sites, then those that left sites out, then the others;
    columns: each site, then all."""
    order = {site: i for i, site in enumerate(comparison.sites)}
    found = {m.name: order.get(m.trained_at or next(iter(without.get(m.name, ())), ""), len(order))
             for m in comparison.models}  # fmt: skip
    models = sorted(comparison.models, key=lambda m: (not m.trained_at, m.name not in without, found[m.name]))
    return Matrix(
        "AUROC" if len(comparison.tasks) == 1 else "mean AUROC of the classes",
        tuple(m.name for m in models),
        (*comparison.sites, POOLED),
        tuple((*(m.sites[site].auroc for site in comparison.sites), m.pooled.auroc) for m in models),
        without,
    )


def row_name(matrix: Matrix, model: str, name: Callable[[str], str] = str) -> str:
    """A model's name, and what its training left out."""
    without = matrix.without.get(model)
    return f"{name(model)} without {', '.join(without)}" if without else name(model)


def table_of(matrix: Matrix, name: Callable[[str], str] = str) -> Table:
    """As plain text; the diagonal, a site's own model on its own cases, in brackets."""
    rows = []
    for model, cells in zip(matrix.trained, matrix.cells, strict=True):
        told = [
            f"[{spell(cell)}]" if matrix.is_marked(model, site) else spell(cell)
            for site, cell in zip(matrix.tested, cells, strict=True)
        ]
        rows.append((row_name(matrix, model, name), *told))
    header = ("Model", *(f"at {site}" if site != POOLED else "at all" for site in matrix.tested))
    note = "In brackets: a site's own model on that site's test cases"
    note += ", and a model on those of a site that its training left out." if matrix.without else "."
    return Table(
        f"{matrix.measure} by where a model was trained and tested (95% CI)", header, tuple(rows), note
    )


def is_own(model: str, site: str) -> bool:
    """Whether this is the site's own model."""
    return model.rpartition("/")[2] == f"local:{site}"


def shade(value: float | None) -> str:
    """A colour from white (0.5 and less) to blue (1), grey where nothing is known."""
    if value is None:
        return "#eceff2"
    part = min(1.0, max(0.0, (value - 0.5) / 0.5))
    red, green, blue = (round(255 - part * (255 - full)) for full in (92, 152, 214))
    return f"#{red:02x}{green:02x}{blue:02x}"


def cell_text(measure: Measure) -> str:
    """What stands in a cell."""
    return number(measure.value)
