"""Each fault with so many seeds ($FEDAI_FAULT_SEEDS, 1), and a table of how they ended.

The table is printed at the end; as JSON it goes to the file that $FEDAI_FAULT_TABLE names.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from shaken_federation import Shaken, Strike, shaken_federation

SEEDS = range(1, 1 + int(os.environ.get("FEDAI_FAULT_SEEDS", "1")))
HERE = Path(__file__).parent


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fault_seed" in metafunc.fixturenames:
        metafunc.parametrize("fault_seed", SEEDS, ids="seed-{}".format)


@pytest.fixture(scope="session")
def shaken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shaken]:
    with shaken_federation(tmp_path_factory.mktemp("shaken")) as federation:
        yield federation


@pytest.fixture(autouse=True)
def _name_of_fault(request: pytest.FixtureRequest, record_property: Any) -> None:
    record_property("fault", fault_of(request.node))


@pytest.fixture
def strike(request: pytest.FixtureRequest, fault_seed: int) -> Strike:
    """When the fault strikes."""
    return Strike.of(fault_of(request.node), fault_seed)


@pytest.fixture
def twin(shaken: Shaken, fault_seed: int) -> dict[str, Any]:
    """The record of the seed's run to which nothing happened."""
    return shaken.twin_of(fault_seed)


def fault_of(item: pytest.Function) -> str:
    """What happens in a test: the function that does it, where there is one, else the test's sentence."""
    known = {**item.callspec.params} if hasattr(item, "callspec") else {}
    known.pop("fault_seed", None)
    fault = known.pop("fault", None)
    name = fault.__name__ if fault else item.originalname.removeprefix("test_")
    return " ".join(
        [name.replace("_", " "), *(f"({getattr(value, 'name', value)})" for value in known.values())]
    )


@dataclass(frozen=True)
class Row:
    """`bit_equal`: in how many runs of how many whose model a twin's can be compared with."""

    fault: str
    runs: int
    ended_as_expected: int
    bit_equal: tuple[int, int]
    median_s: float


def rows_of(reports: list[pytest.TestReport]) -> list[Row]:
    """One for each fault, in the order in which they were first met."""
    by_fault: dict[str, list[pytest.TestReport]] = defaultdict(list)
    for report in reports:
        told = dict(report.user_properties)
        if "fault" in told and (report.when == "call" or report.failed):
            by_fault[str(told["fault"])].append(report)
    return [_row(fault, met) for fault, met in by_fault.items()]


def _row(fault: str, reports: list[pytest.TestReport]) -> Row:
    equal = [told["bit_equal"] for report in reports if "bit_equal" in (told := dict(report.user_properties))]
    seconds = [report.duration for report in reports if report.when == "call"]
    return Row(
        fault,
        len(reports),
        sum(report.passed for report in reports),
        (sum(map(bool, equal)), len(equal)),
        round(median(seconds), 1) if seconds else 0.0,
    )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [
        report
        for kind in ("passed", "failed", "error")
        for report in terminalreporter.stats.get(kind, [])
        if isinstance(report, pytest.TestReport)
    ]
    rows = rows_of(reports)
    if not rows:
        return
    terminalreporter.section("faults")
    width = max(len(row.fault) for row in rows)
    terminalreporter.write_line(
        f"{'fault':{width}} {'runs':>5} {'as expected':>12} {'bit-equal':>10} {'median':>9}"
    )
    for row in rows:
        equal = "{} of {}".format(*row.bit_equal) if row.bit_equal[1] else "-"
        terminalreporter.write_line(
            f"{row.fault:{width}} {row.runs:5} {row.ended_as_expected:12} {equal:>10} {row.median_s:7.1f} s"
        )
    if table := os.environ.get("FEDAI_FAULT_TABLE"):
        Path(table).write_text(json.dumps([asdict(row) for row in rows], indent=1))
