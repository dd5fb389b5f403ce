"""The generalization matrix: where a model was trained against where it is tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedai.results import POOLED, Comparison, Measure, listed
from fedai.tables import Table, number, spell


@dataclass(frozen=True)
class Matrix:
    """AUROC (with several classes their mean) of each model, `trained` as named, at each site, and on all
    sites' cases."""

    measure: str
    trained: tuple[str, ...]
    tested: tuple[str, ...]
    cells: tuple[tuple[Measure, ...], ...]

    def to_json(self) -> dict[str, Any]:
        rows = zip(self.trained, self.cells, strict=True)
        return {
            "measure": self.measure,
            "tested_at": list(self.tested),
            "rows": [
                {
                    "model": name,
                    "values": [cell.value for cell in cells],
                    "ci95": [listed(cell.ci95) for cell in cells],
                }
                for name, cells in rows
            ],
        }


def matrix_of(comparison: Comparison) -> Matrix:
    """Local-only models first, in the order of the sites, then the others; columns: each site, then all."""
    order = {site: i for i, site in enumerate(comparison.sites)}
    models = sorted(comparison.models, key=lambda m: (not m.trained_at, order.get(m.trained_at, len(order))))
    return Matrix(
        "AUROC" if len(comparison.tasks) == 1 else "mean AUROC of the classes",
        tuple(m.name for m in models),
        (*comparison.sites, POOLED),
        tuple((*(m.sites[site].auroc for site in comparison.sites), m.pooled.auroc) for m in models),
    )


def table_of(matrix: Matrix, name: Callable[[str], str] = str) -> Table:
    """As plain text; the diagonal, a site's own model on its own cases, in brackets."""
    rows = []
    for model, cells in zip(matrix.trained, matrix.cells, strict=True):
        told = [
            f"[{spell(cell)}]" if is_own(model, site) else spell(cell)
            for site, cell in zip(matrix.tested, cells, strict=True)
        ]
        rows.append((name(model), *told))
    header = ("Model", *(f"at {site}" if site != POOLED else "at all" for site in matrix.tested))
    note = "In brackets: a site's own model on that site's test cases."
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
