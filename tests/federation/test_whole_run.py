"""A whole run with real processes, TLS and keys: what is on record at both sides is what happened."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fedai_site.home import SiteHome
from fedai_site.sent import Sent
from fedai_site.witness import verify
from federation_processes import fedai_command
from federation_sites import PATIENTS, SITES, Federation, environment
from received import arrays_in, messages_in, objects_in

from fedai.compare import compare
from fedai.errors import DataError
from fedai.ledger import Ledger
from fedai.record import read_judgement, read_record

pytestmark = pytest.mark.federation
MODELS = ["federated", "local:east", "local:north", "local:south"]


def test_the_record_is_complete(whole_run: dict[str, Any], federation: Federation) -> None:
    assert whole_run["state"] == "finished"
    assert read_record(federation.home.folder / "registry" / "whole-1")["rounds"] == whole_run["rounds"]
    assert [closed["number"] for closed in whole_run["rounds"]] == [1, 2]
    for closed in whole_run["rounds"]:
        assert closed["answered"] == sorted(SITES)
        assert not closed["late"]
        assert not closed["refused"]
        assert set(closed["train_loss"]) == set(closed["validation"]) == set(SITES)
    assert whole_run["models"] == MODELS
    for site in SITES:
        cohort = whole_run["cohorts"][site]
        assert cohort["flow"]["found"] == cohort["flow"]["used"] == PATIENTS
        assert sum(split["cases"] for split in cohort["splits"].values()) == PATIENTS
        assert {closed["cases"][site] for closed in whole_run["rounds"]} == {
            cohort["splits"]["train"]["cases"]
        }
        assert set(whole_run["versions"][site]) == {"fedai", "flwr", "torch", "monai", "pydicom"}


def test_the_checkpoints_are_chained_by_their_parents(
    whole_run: dict[str, Any], federation: Federation
) -> None:
    registry = federation.home.folder / "registry" / "whole-1"
    manifests = [json.loads((registry / f"round-000{n}" / "manifest.json").read_text()) for n in range(3)]
    assert [manifest["parent"] for manifest in manifests] == ["", *(m["sha256"] for m in manifests[:2])]
    assert [closed["checkpoint"] for closed in whole_run["rounds"]] == [m["sha256"] for m in manifests[1:]]
    assert len({manifest["sha256"] for manifest in manifests}) == 3
    assert all(manifest["study"] == whole_run["study_hash"] for manifest in manifests)
    assert manifests[2]["sites"] == sorted(SITES)
    assert manifests[2]["cases"] == sum(whole_run["rounds"][1]["cases"].values())


def test_the_ledgers_hold_exactly_what_the_server_got(whole_run: object, federation: Federation) -> None:
    nodes, run = federation.node_ids(), federation.runs.get("whole-1").flower_id
    pushed, said, got = messages_in(federation.received), set(), set()
    for name in SITES:
        site = federation.sites[name]
        assert Ledger(site.home.ledger).verify() > 0
        lines = site.ledger("whole-1")
        kinds = ["status", "update", "update", "update", "score", "score", "score", "score", "score"]
        assert [line["kind"] for line in lines] == kinds
        mine = [message for message in pushed if (message.node_id, message.run_id) == (nodes[name], run)]
        assert len(mine) == len(lines)
        assert not any(message.error for message in mine)
        own = {array["sha256"] for line in lines for array in line["arrays"]}
        received = arrays_in(federation.received, nodes[name], run)
        assert received <= own  # what another site had sent before isn't asked for a second time
        said, got = said | own, got | received
    assert got == said


def test_the_bytes_that_left_are_kept_as_the_server_got_them(
    whole_run: object, federation: Federation
) -> None:
    received = objects_in(federation.received)
    nodes, run = federation.node_ids(), federation.runs.get("whole-1").flower_id
    for name in SITES:
        home = federation.sites[name].home
        sent, objects = Sent(home.sent, home.settings.keep_sent_days), set()
        for line in federation.sites[name].ledger("whole-1"):
            content = sent.bytes_of(line)
            assert content is not None
            objects |= {content[start : start + size] for start, size in _places(line["objects"])}
        got = {content for node, of, content in received if (node, of) == (nodes[name], run)}
        assert got
        assert got <= objects, "not a byte that isn't kept"


def _places(objects: list[tuple[str, int]]) -> Iterator[tuple[int, int]]:
    start = 0
    for _, size in objects:
        yield start, size
        start += size


def test_the_ledgers_heads_are_at_the_witness_and_at_the_server(
    whole_run: dict[str, Any], federation: Federation, tmp_path: Path
) -> None:
    record = federation.home.folder / "registry" / "whole-1" / "record.json"
    assert json.loads(record.read_text())["ledger_contradictions"] == {}
    for name in SITES:
        home = federation.sites[name].home
        lines = [line["seq"] for line in federation.sites[name].ledger("whole-1")]
        told = [head["lines"] for head in whole_run["ledger_heads"][name]]
        assert told == [line["head"] for line in federation.sites[name].ledger("whole-1") if line["head"]]
        assert max(told) == max(lines) - 1, "each answer carries the head of the line before its own"
        assert verify(home).witnessed >= max(lines)
        assert verify(home, record).witnessed == len(told)
        copy = SiteHome(tmp_path / name, home.settings.model_copy(update={"witness": None}))
        (copy.folder / "keys").mkdir(parents=True)
        copy.ledger_key.write_bytes(home.ledger_key.read_bytes())
        cut = home.ledger.read_bytes().splitlines(keepends=True)[: max(told) - 1]
        copy.ledger.write_bytes(b"".join(cut))
        copy.ledger_heads.write_bytes(
            b"".join(home.ledger_heads.read_bytes().splitlines(keepends=True)[: len(cut)])
        )
        assert verify(copy).lines == len(cut), "alone, the cut can't be seen"
        with pytest.raises(DataError, match=f"line {max(told)}: it is missing"):
            verify(copy, record)


def test_the_models_are_judged_and_compared(whole_run: object, federation: Federation) -> None:
    folder = federation.home.folder / "registry" / "whole-1"
    judgement = read_judgement(folder)
    assert sorted(judgement.models) == MODELS
    told = compare(judgement).to_json()
    assert set(told["federated"]["sites"]) == set(SITES)
    words = ["compare", "whole-1", "--home", str(federation.home.folder), "--json"]
    done = subprocess.run(
        [*fedai_command(), *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).items() >= json.loads(json.dumps(told)).items()


def test_a_run_is_done_once_more_without_a_restart_and_no_bit_differs(
    whole_run: dict[str, Any], federation: Federation
) -> None:
    words = [*fedai_command(), "run", "reproduce", "whole-1", "--home", str(federation.home.folder), "--json"]
    environ = environment(federation.witness)
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr + federation.told()
    told = json.loads(done.stdout)
    assert (told["same"], told["first"], told["reasons"]) == (True, "whole-1", [])
    assert set(told["models"]) == {*MODELS, "round-0000", "round-0001", "round-0002"}
    assert federation.runs.record(told["run"])["state"] == "finished"
