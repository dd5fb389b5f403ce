"""benchmarks/rounds: how each side's rounds are read, and what is made of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedai.errors import FederationError

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks.round_overhead.figures import Round  # noqa: E402
from benchmarks.rounds.breakdown import Rest, Work, rest_table, rests, works_in  # noqa: E402
from benchmarks.rounds.figures import summary, table  # noqa: E402
from benchmarks.rounds.nvflare_side import began, descendants, read_rounds  # noqa: E402

STAMP = "2026-01-01 00:00:0{} - FedAvg - INFO - [identity=server] - "
LOG = "\n".join(
    [
        STAMP.format("1,000"), "-" * 80, f"{'Round 0 started.':^80}", "-" * 80,
        STAMP.format("2,000") + "Aggregated 1/2 results",
        STAMP.format("4,500"), "-" * 80, f"{'Round 1 started.':^80}", "-" * 80,
        STAMP.format("6,000"), "=" * 80, f"{'Finished FedAvg.':^80}", "=" * 80,
    ]
)  # fmt: skip


def write_times(folder: Path, site: str, seconds: list[float]) -> None:
    lines = [json.dumps({"round": number, "seconds": one}) for number, one in enumerate(seconds)]
    (folder / f"{site}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_nvflares_rounds_lie_between_two_starts_and_the_slowest_site_counts(tmp_path: Path) -> None:
    write_times(tmp_path, "north", [0.5, 0.25])
    write_times(tmp_path, "east", [0.25, 0.75])
    assert read_rounds(LOG, tmp_path, ["north", "east"]) == [Round(3.5, 0.5), Round(1.5, 0.75)]


def test_a_round_that_a_site_of_nvflares_doesnt_tell_ends_the_measurement(tmp_path: Path) -> None:
    write_times(tmp_path, "north", [0.5, 0.25])
    write_times(tmp_path, "east", [0.25])
    with pytest.raises(FederationError, match="closed 2 rounds"):
        read_rounds(LOG, tmp_path, ["north", "east"])


def test_fedai_is_ahead_only_where_its_rest_is_below_that_of_each_side() -> None:
    ours = [Round(2.0, 1.0), Round(3.0, 1.0), Round(4.0, 1.0)]
    slow, fast = [Round(6.0, 1.0)], [Round(2.0, 0.5)]
    told = summary({"fedai": ours, "slow": slow})
    assert told["ratios"] == {"slow": pytest.approx(2.0 / 5.0)}
    assert told["ahead"] is True
    both = {"fedai": ours, "slow": slow, "fast": fast}
    assert summary(both)["ahead"] is False
    lines = table(both)
    assert next(line for line in lines if line.startswith("fast")).split()[-1] == "1.33"
    assert "NOT ahead" in lines[-1]


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(1_000_000 + seconds, UTC)


def test_a_rounds_parts_are_those_of_the_last_answer_and_add_up_to_the_round() -> None:
    facts = [
        (at(1), "site_ready", {"site": "north"}),
        (at(2), "ledger_head", {"site": "north"}),  # before the last site was ready
        (at(3), "site_ready", {"site": "east"}),
        (at(5), "ledger_head", {"site": "east"}),
        (at(7), "ledger_head", {"site": "north"}),
        (at(8), "round_closed", {"number": 1}),
        (at(11), "ledger_head", {"site": "north"}),
        (at(12), "ledger_head", {"site": "east"}),
        (at(12.5), "round_closed", {"number": 2}),
    ]
    began_at = 1_000_000
    works = {
        "north": {1: Work(began_at + 4, began_at + 6), 2: Work(began_at + 9, began_at + 10)},
        "east": {1: Work(began_at + 3.5, began_at + 4.5), 2: Work(began_at + 10, began_at + 11.5)},
    }
    found = list(rests(facts, works))
    assert found == [Rest(1, 2, 1, 1), Rest(2, 1.5, 0.5, 0.5)]
    assert "out 1.50" in rest_table(found)[0]


def test_a_round_without_an_answer_in_the_database_is_told() -> None:
    facts = [(at(1), "site_ready", {"site": "north"}), (at(2), "round_closed", {"number": 1})]
    with pytest.raises(FederationError, match="round 1: no answer"):
        list(rests(facts, {"north": {}}))


def test_a_sites_log_tells_when_it_had_a_task_and_had_done_it() -> None:
    line = "2026-01-01 00:00:0{}{} INFO fedai.site.agent {}"
    log = "\n".join(
        [
            line.format(1, ",250", "tiny-1: train round 1"),
            line.format(2, ",000", "tiny-1: train-1- took 0.700 s"),
            line.format(3, ",000", "other-1: train round 1"),
            line.format(4, ",000", "tiny-1: score-0-federated took 0.100 s"),
        ]
    )
    (work,) = works_in(log, "tiny-1").values()
    assert work.done - work.begun == pytest.approx(0.75)


def test_what_a_process_has_started_is_found_by_id() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert child.pid in descendants(os.getpid())
        assert began(child.pid)
    finally:
        child.kill()
        child.wait()
    assert began(child.pid) == ""
    assert descendants(child.pid) == []


def test_the_benchmark_says_how_it_is_called() -> None:
    command = [sys.executable, "-m", "benchmarks.rounds", "--help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "python -m benchmarks.rounds" in told
    assert "--json" in told
