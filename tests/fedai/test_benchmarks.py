"""The benchmarks' own arithmetic, and that they say how they are called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from fedai.errors import DataError, FederationError

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks.processes import free_ports  # noqa: E402
from benchmarks.real_images.images import Images, read_images, share_out, write_export  # noqa: E402
from benchmarks.real_images.results import accounting, missing  # noqa: E402
from benchmarks.round_overhead.fedai_side import slowest  # noqa: E402
from benchmarks.round_overhead.figures import Round, blocks, spread, summary, table  # noqa: E402
from benchmarks.round_overhead.flower_side import read_times  # noqa: E402

CLASSES = ("hand", "head")


@pytest.mark.parametrize(
    "name",
    ["coverage", "startup", "round_overhead", "round_memory", "real_images", "deidentification", "intake"],
)
def test_a_benchmark_says_how_it_is_called(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"python -m benchmarks.{name}" in told
    assert "--json" in told


def test_without_images_the_benchmark_says_so_and_is_no_failure(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.real_images", "--images", str(tmp_path / "none.npz")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "no images at" in done.stdout


def test_quartiles_lie_between_the_values() -> None:
    found = spread([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (found.lower, found.median, found.upper) == (2.0, 3.0, 4.0)
    assert spread([2.5]).median == 2.5
    with pytest.raises(ValueError, match="no round"):
        spread([])


@given(some.integers(1, 60), some.integers(1, 60))
def test_blocks_hold_all_rounds_and_none_is_empty(rounds: int, count: int) -> None:
    sizes = blocks(rounds, count)
    assert sum(sizes) == rounds
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) <= count


def test_the_ratio_is_of_median_overheads_without_the_computing() -> None:
    ours = [Round(2.0, 1.0), Round(3.0, 1.0), Round(11.0, 1.0)]
    theirs = [Round(22.0, 2.0), Round(23.0, 3.0)]
    told = summary(ours, theirs)
    assert told["ratio"] == pytest.approx(2.0 / 20.0)
    assert told["met"] is True
    assert summary(theirs, ours)["met"] is False
    assert any("0.100 (1/10.0); target 1/6: met" in line for line in table(ours, theirs))


def test_flowers_rounds_lie_between_two_closings() -> None:
    told = {"closed": [10.0, 30.0, 45.0], "train": [1.0, 2.0], "evaluate": [0.5, 0.25]}
    assert read_times(told) == [Round(20.0, 1.5), Round(15.0, 2.25)]


def test_the_slowest_site_counts_in_each_round_of_one_run() -> None:
    line = "2026-01-01 00:00:00,000 INFO fedai.site.agent"
    north = f"{line} tiny-1: train-1- took 0.250 s\n{line} tiny-2: train-1- took 9.000 s\n"
    south = f"{line} tiny-1: train-1- took 0.500 s\n{line} tiny-1: score-0-federated took 3.000 s\n"
    assert slowest([north, south], "tiny-1") == {1: 0.5}
    with pytest.raises(FederationError):
        slowest([north, south], "tiny-2")


def test_free_ports_differ() -> None:
    assert len(set(free_ports(5))) == 5


@given(some.lists(some.integers(0, 5), min_size=1, max_size=300), some.integers(1, 6), some.integers(0, 99))
def test_each_image_goes_to_exactly_one_site(labels: list[int], sites: int, seed: int) -> None:
    parts = share_out(np.array(labels), sites, seed=seed)
    assert len(parts) == sites
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))


def test_the_six_classes_are_shared_out_unevenly_and_always_in_the_same_way() -> None:
    labels = np.repeat(np.arange(6), 600)
    parts = share_out(labels, 3)
    counts = np.stack([np.bincount(labels[part], minlength=6) for part in parts])
    assert (counts.sum(axis=0) == 600).all()
    assert counts.sum(axis=1).min() > 900
    assert (counts.min(axis=0) < 30).sum() >= 3
    assert all((one == two).all() for one, two in zip(parts, share_out(labels, 3), strict=True))


def test_images_are_read_class_by_class(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    pixels, labels = np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4), np.array([0, 1, 0, 1, 0, 1])
    np.savez(path, images=pixels, labels=labels, classes=np.array(CLASSES))
    found = read_images(path, 2)
    assert found.classes == CLASSES
    assert found.labels.tolist() == [0, 1, 0, 1]
    assert (found.pixels == pixels[:4]).all()
    np.savez(path, images=pixels.astype(float), labels=labels, classes=np.array(CLASSES))
    with pytest.raises(DataError, match="uint8"):
        read_images(path)


def test_an_export_holds_a_file_and_a_label_for_each_image(tmp_path: Path) -> None:
    images = Images(np.zeros((3, 8, 8), dtype=np.uint8), np.array([0, 1, 1]), CLASSES)
    export = write_export(tmp_path, "north", images, np.array([0, 2]))
    assert len(list(export.images.iterdir())) == 2
    lines = export.labels.read_text(encoding="utf-8").split()
    assert lines == ["PatientID,label", "north-00000,hand", "north-00002,head"]


def _cohort(found: int, used: int, excluded: int) -> dict[str, object]:
    flow = {
        "found": found,
        "deidentified": used,
        "consented": used,
        "labelled": used,
        "eligible": used,
        "used": used,
    }
    splits = {
        split: {"patients": cases, "cases": cases, "classes": [cases, 0]}
        for split, cases in (("train", used - 2), ("validation", 1), ("test", 1))
    }
    return {"flow": flow, "excluded": {"unlabelled": excluded}, "splits": splits}


def test_an_image_that_is_neither_used_nor_excluded_is_named_as_missing() -> None:
    assert missing({"north": _cohort(10, 9, 1)}, {"north": 10}) == []
    assert "9 of 10" in missing({"north": _cohort(9, 9, 0)}, {"north": 10})[0]
    assert "8 are used or excluded" in missing({"north": _cohort(10, 8, 0)}, {"north": 10})[0]


def test_the_accounting_adds_the_sites_up() -> None:
    cohorts = {"north": _cohort(10, 9, 1), "south": _cohort(6, 6, 0)}
    rows = list(accounting(cohorts, {"north": 10, "south": 6}, CLASSES))
    total = next(row for row in rows if row.startswith("all "))
    assert total.split() == ["all", "16", "16", "15", "15", "15", "15", "15", "1", "11", "2", "2"]


def test_an_invented_federations_auroc_is_that_of_very_many_of_its_patients() -> None:
    from benchmarks.coverage.simulation import Population, rows_of_site

    population = Population(
        np.array([60_000, 20_000]), np.array([0.2, 0.6]), np.array([0.3, -0.2]), 1.4, 1.5, 0.6, 2
    )
    rng = np.random.default_rng(3)
    sites = [rows_of_site(rng, population, s, ("m0",)) for s in (0, 1)]
    scores = np.concatenate([site.scores[:, 0] for site in sites])
    positive = np.concatenate([site.positive for site in sites])
    below = np.searchsorted(np.sort(scores[~positive]), scores[positive]) / (~positive).sum()
    assert below.mean() == pytest.approx(population.auroc, abs=0.006)
    other = Population(
        np.array([60_000, 20_000]), np.array([0.2, 0.6]), np.array([0.3, -0.2]), 1.0, 1.0, 0.6, 2
    )
    assert abs(other.auroc - population.auroc) > 0.01


def test_the_coverage_benchmark_counts_what_it_saw() -> None:
    from benchmarks.coverage.simulation import family, tally

    found = tally(0.05, 12, seed=5)
    assert found.federations == 12
    assert found.refused + found.tests == 12
    assert found.intervals + found.absent == 2 * found.tests
    assert 0.5 < found.coverage <= 1
    assert found.image_intervals == found.tests
    answered, plain, adjusted = family(3, 0.3, 6, seed=5)
    assert answered == 6
    assert adjusted <= plain <= answered
