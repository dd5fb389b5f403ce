"""A reader's test of the record: from a run's folder alone, the report's tables, to the last digit.

What is computed here uses nothing of fedai: plain sums over the numbers that judgement.json holds.
"""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections import Counter
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import draw_record, draw_with_subgroups
from scipy.optimize import brentq
from scipy.special import owens_t
from scipy.stats import norm, t

from fedai.cli.app import run as fedai

Grid = dict[str, list[list[str]]]


class Tables(HTMLParser):
    """Caption -> rows of cells, of every table of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: Grid = {}
        self.caption, self.row, self.cell = "", [], None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("caption", "td", "th"):
            self.cell = ""
        if tag == "tr":
            self.row = []

    def handle_data(self, data: str) -> None:
        if self.cell is not None:
            self.cell += data

    def handle_endtag(self, tag: str) -> None:
        text = re.sub(r"\s+", " ", self.cell or "")
        if tag == "caption":
            self.caption = text
            self.found[text] = []
        if tag in ("td", "th"):
            self.row.append(text)
        if tag == "tr":
            self.found[self.caption].append(self.row)
        if tag in ("caption", "td", "th"):
            self.cell = None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, moved away from the server's home that it was made in."""
    made = tmp_path_factory.mktemp("home") / "registry" / "cxr-nodule-1"
    made.mkdir(parents=True)
    (made / "record.json").write_text(json.dumps(draw_record()))
    (made / "judgement.json").write_text(json.dumps(draw_with_subgroups(patients=70).to_json()))
    return Path(shutil.move(made, tmp_path_factory.mktemp("elsewhere") / "run"))


@pytest.fixture(scope="module")
def pages(folder: Path) -> tuple[Grid, list[dict[str, str]]]:
    out, table = folder / "report.html", folder / "table.csv"
    assert fedai(["report", str(folder), "--out", str(out), "--csv", str(table)]) == 0
    with table.open(encoding="utf-8", newline="") as file:
        return Tables(out.read_text(encoding="utf-8")).found, list(csv.DictReader(file))


@pytest.fixture(scope="module")
def kept(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "judgement.json").read_text()))


def sides_of(kept: dict[str, Any], model: str, sites: list[str]) -> tuple[dict[int, int], dict[int, int]]:
    """Negatives and positives by bin, over some sites."""
    made = []
    for side in (0, 1):
        total: Counter[int] = Counter()
        for site in sites:
            part = kept["scores"][site][model]["histogram"][0][side]
            total.update(dict(zip(part["bins"], part["counts"], strict=True)))
        made.append(dict(total))
    return made[0], made[1]


def auroc(negatives: dict[int, int], positives: dict[int, int]) -> float:
    won = sum(n * m * (1.0 if b > a else 0.5 if a == b else 0.0)
              for a, n in negatives.items() for b, m in positives.items())  # fmt: skip
    return won / (sum(negatives.values()) * sum(positives.values()))


def average_precision(negatives: dict[int, int], positives: dict[int, int]) -> float:
    """Cases of a bin spread evenly through it."""
    tp = fp = 0
    total = 0.0
    for b in sorted({*negatives, *positives}, reverse=True):
        n, m = negatives.get(b, 0), positives.get(b, 0)
        total += sum((tp + i) / (tp + i + fp + n * i / (m + 1)) for i in range(1, m + 1))
        tp, fp = tp + m, fp + n
    return total / sum(positives.values())


def name_of(model: str) -> str:
    if model.startswith("local:"):
        return f"{model[6:]} alone"
    return {"federated": "Federated", "centralised": "All data in one place"}[model]


def shown(value: float) -> str:
    return f"{value:.3f}"


def test_the_table_of_models_is_rebuilt_to_the_last_digit(pages: Any, kept: dict[str, Any]) -> None:
    grid = next(rows for caption, rows in pages[0].items() if caption.startswith("All sites together"))
    sites = list(kept["scores"])
    assert [row[0] for row in grid[1:]] == [name_of(m) for m in kept["models"]]
    for row, model in zip(grid[1:], kept["models"], strict=True):
        negatives, positives = sides_of(kept, model, sites)
        tp, fp, tn, fn = np.sum([kept["scores"][s][model]["threshold_counts"][0] for s in sites], axis=0)
        ties = sum(n * positives.get(b, 0) for b, n in negatives.items())
        pairs = sum(negatives.values()) * sum(positives.values())
        expected = [
            auroc(negatives, positives),
            average_precision(negatives, positives),
            tp / (tp + fn),
            tn / (tn + fp),
        ]
        assert [cell.split(" ")[0] for cell in row[1:5]] == [shown(v) for v in expected]
        assert row[5] == f"{ties / 2 / pairs:.4f}"
        for cell, side in ((row[3], 1), (row[4], 0)):
            assert cell == shown_with(*wilson(kept, model, sites, side))


def shown_with(value: float, low: float, high: float) -> str:
    return f"{shown(value)} ({shown(low)} to {shown(high)})"


def wilson(kept: dict[str, Any], model: str, sites: list[str], side: int) -> tuple[float, float, float]:
    return wilson_of([kept["scores"][s][model] for s in sites], side)


def wilson_of(scores: list[dict[str, Any]], side: int) -> tuple[float, float, float]:
    """Share and Wilson's interval on Rao and Scott's effective size."""
    tp, fp, tn, fn = np.sum([s["threshold_counts"][0] for s in scores], axis=0)
    hh, hn, nn = np.sum([s["threshold_squares"][0][side] for s in scores], axis=0)
    patients = sum(s["threshold_patients"][0][side] for s in scores)
    right, cases = (tp, tp + fn) if side else (tn, tn + fp)
    p = right / cases
    spread = hh - 2 * p * hn + p * p * nn
    size = min(cases, p * (1 - p) * cases**2 * (patients - 1) / (patients * spread))
    z = norm.ppf(0.975)
    centre = (p + z * z / (2 * size)) / (1 + z * z / size)
    reach = z * math.sqrt(p * (1 - p) / size + z * z / (4 * size * size)) / (1 + z * z / size)
    return p, centre - reach, centre + reach


def test_the_table_of_calls_is_rebuilt_to_the_last_digit(pages: Any, kept: dict[str, Any]) -> None:
    """McNemar's tests from the sums of joint calls; Holm's adjustment over the models."""
    grid = next(rows for caption, rows in pages[0].items() if caption.startswith("Calls at a score"))
    both = np.sum([kept["calls"][s]["calls_both"] for s in kept["calls"]], axis=0)
    products = np.sum([kept["calls"][s]["calls_products"] for s in kept["calls"]], axis=0)
    cases = np.sum([kept["calls"][s]["calls_cases"] for s in kept["calls"]], axis=0)[:, 0]
    models, q = kept["models"], len(kept["models"])
    rows, ps = {}, {}
    for j, model in enumerate(models[1:], start=1):
        for on, sides in (("all", (0, 1)), ("positives", (1,)), ("negatives", (0,))):
            a = sum(int(both[s][0][0] - both[s][0][j]) for s in sides)
            b = sum(int(both[s][j][j] - both[s][0][j]) for s in sides)
            weights = np.zeros(2 * q)
            for s in sides:
                weights[[s * q, s * q + j]] = 1, -1
            spread = float(weights @ products @ weights)
            rows[model, on] = (a, b, (a - b) / sum(cases[s] for s in sides))
            ps[model, on] = 2 * norm.sf(abs(a - b) / math.sqrt(spread))
    assert len(grid) == 1 + len(rows)
    for row, ((model, on), (a, b, difference)) in zip(grid[1:], rows.items(), strict=True):
        sign = "−" if difference < 0 else "+"
        assert row[:5] == [
            f"Federated and {name_of(model)}",
            on,
            str(a),
            str(b),
            sign + shown(abs(difference)),
        ]
        assert row[5] == p_text(ps[model, on])
        family = sorted(p for (_, of), p in ps.items() if of == on)
        steps = [min(1.0, p * (len(family) - i)) for i, p in enumerate(family)]
        rank = family.index(ps[model, on])
        assert row[6] == p_text(max(steps[: rank + 1]))


def p_text(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def test_every_paired_difference_of_the_long_table_is_rebuilt(pages: Any, kept: dict[str, Any]) -> None:
    """DeLong's variance, clustered by patient, written out from the sums; t with Satterthwaite's degrees."""
    sums, models = kept["pooled"], kept["models"]
    products, q = np.array(sums["placement_products"]), len(models)
    n = np.array(sums["placement_cases"], float)[:, 0]
    members, patients = np.array(sums["placement_members"], float)[:, 0], sums["placement_patients"][0]
    values = [auroc(*sides_of(kept, model, list(kept["scores"]))) for model in models]
    found = [r for r in pages[1] if r["measure"] == "auroc difference" and r["cases_of"] == "pooled"]
    assert len(found) == q  # every other model, and the mean of the local ones
    for row in (r for r in found if r["against"] in models):
        weights = np.zeros(q)
        weights[0], weights[models.index(row["against"])] = 1, -1
        parts = np.zeros((2, 2))
        for s in (0, 1):
            for u in (0, 1):
                factor = members[s] / (members[s] - 1) if s == u else patients / (patients - 1)
                block = products[s * q : (s + 1) * q, u * q : (u + 1) * q]
                parts[s, u] = factor * (weights @ block @ weights) / (n[s] * n[u])
        se = math.sqrt(parts.sum())
        df = (parts[0, 0] + parts[1, 1]) ** 2 / sum(parts[s, s] ** 2 / (members[s] - 1) for s in (0, 1))
        difference = weights @ values
        reach = t.ppf(0.975, df) * se
        expected = (difference, difference - reach, difference + reach, 2 * t.sf(abs(difference) / se, df))
        told = [float(row[key]) for key in ("value", "ci95_low", "ci95_high", "p")]
        assert told == pytest.approx(expected, rel=1e-9, abs=1e-12)


def binormal(theta: float, negatives: int, positives: int) -> float:
    """Variance of the AUROC of so many independent cases, by the model of two normal distributions."""
    c = norm.ppf(theta)
    both = norm.cdf(c) - 2 * owens_t(c, 1 / math.sqrt(3))
    spread = theta * (1 - theta) + (negatives + positives - 2) * max(0.0, both - theta**2)
    return float(spread / (negatives * positives))


def modelled(weights: Any, members: Any, theta: float) -> float:
    return sum(w**2 * binormal(theta, *of) for w, of in zip(weights, members, strict=True))


def test_the_auroc_of_every_subgroup_is_rebuilt_from_the_sums_of_its_sites(
    pages: Any, kept: dict[str, Any]
) -> None:
    """Pairs within sites; DeLong's variance, clustered by patient; all values that a test doesn't reject."""
    levels = [f"{variable}={level}" for variable, of in kept["levels"].items() for level in of]
    rows = [r for r in pages[1] if r["measure"] == "auroc within sites" and not r["cases_of"].endswith("all")]
    assert len(rows) == 4 * len(kept["models"]), "nobody is of another sex"
    for row in rows:
        i = levels.index(row["cases_of"])
        told = [by_model[row["model"]][i] for by_model in kept["subgroups"].values()]
        told = [one for one in told if one["placement_patients"][0]]
        n = np.array([one["placement_cases"] for one in told], float)[:, :, 0]
        m = np.array([one["placement_members"] for one in told], float)[:, :, 0]
        weights = n.prod(axis=1) / n.prod(axis=1).sum()
        value = weights @ [one["placement_sums"][1][0] / one["placement_cases"][1][0] for one in told]
        parts, variance = [], 0.0
        for w, one, cases, members in zip(weights, told, n, m, strict=True):
            p, patients = np.array(one["placement_products"]), one["placement_patients"][0]
            own = [w**2 * p[s, s] / cases[s] ** 2 * members[s] / (members[s] - 1) for s in (0, 1)]
            parts += [(v, members[s] - 1) for s, v in enumerate(own)]
            variance += sum(own) + 2 * w**2 * p[0, 1] / cases.prod() * patients / (patients - 1)
        df = sum(v for v, _ in parts) ** 2 / sum(v**2 / free for v, free in parts)
        of_cases = sum(w**2 * binormal(value, *c) for w, c in zip(weights, n, strict=True))

        model = partial(modelled, weights, m)
        reach = t.ppf(0.975, df) ** 2 * max(variance, of_cases) / model(value)

        def apart(theta: float, value: Any = value, reach: Any = reach, model: Any = model) -> float:
            return float((value - theta) ** 2 - reach * model(theta))

        expected = (value, brentq(apart, 1e-6, value), brentq(apart, value, 1 - 1e-9))
        assert [float(row[key]) for key in ("value", "ci95_low", "ci95_high")] == pytest.approx(
            expected, rel=1e-6
        )


def test_the_tables_of_subgroups_are_rebuilt_to_the_last_digit(pages: Any, kept: dict[str, Any]) -> None:
    grid = next(rows for caption, rows in pages[0].items() if caption.startswith("By sex: Federated"))
    for row in grid[2:4]:
        i = kept["levels"]["sex"].index(row[0])
        told = [by_model["federated"][i] for by_model in kept["subgroups"].values()]
        tp, fp, tn, fn = np.sum([one["threshold_counts"][0] for one in told], axis=0)
        patients = sum(one["placement_patients"][0] for one in told)
        assert row[1:4] == [str(tp + fp + tn + fn), str(patients), ", ".join(kept["subgroups"])]
        for cell, side in ((row[5], 1), (row[6], 0)):
            assert cell == shown_with(*wilson_of(told, side))
    lowest = min(grid[2:4], key=lambda row: float(row[4].split(" ")[0]))
    assert grid[4][4] == f"{lowest[0]}: {lowest[4].split(' ')[0]}"


def test_the_same_folder_gives_the_same_report(folder: Path, pages: Any) -> None:
    before = (folder / "report.html").read_bytes()
    assert fedai(["report", str(folder), "--out", str(folder / "again.html")]) == 0
    assert (folder / "again.html").read_bytes() == before
    assert fedai(["report", str(folder)]) == 2, "report.html is there already"
    assert fedai(["report", str(folder), "--force"]) == 0
    assert (folder / "report.html").read_bytes() == before
