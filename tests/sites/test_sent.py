from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
from fedai_site.egress import Egress, seal
from fedai_site.fleet import pack
from fedai_site.sent import Sent
from replies_to import LAYOUT, STUDY, message_of, reply_to, task_of

from fedai.errors import DataError
from fedai.flower import reply_record
from fedai.ledger import Ledger


def passed(folder: Path, days: float) -> tuple[Sent, Ledger, dict[str, bytes]]:
    """A training answer that passed egress, and its objects."""
    sent, ledger = Sent(folder / "sent", days), Ledger(folder / "ledger.jsonl")
    task = task_of("train")
    reply = reply_to(task)
    parcel = pack(reply_record(reply), message_of(task))
    given = {"size": parcel.size, "objects": parcel.objects}
    Egress(ledger, sent).pass_reply(reply, task, STUDY, LAYOUT, task.run, **given)
    return sent, ledger, parcel.objects


def test_the_very_bytes_that_left_are_kept_and_their_hashes_are_in_the_ledger(tmp_path: Path) -> None:
    sent, ledger, objects = passed(tmp_path, days=1)
    (line,) = ledger.lines()
    assert sent.bytes_of(line) == b"".join(objects.values())
    assert line["objects"] == [[hashlib.sha256(one).hexdigest(), len(one)] for one in objects.values()]
    assert [name for name, _ in line["objects"]] == list(objects), "Flower names an object by the same hash"
    assert line["bytes"] == sum(size for _, size in line["objects"])


def test_an_errors_bytes_are_kept_too(tmp_path: Path) -> None:
    sent, ledger = Sent(tmp_path / "sent", 1), Ledger(tmp_path / "ledger.jsonl")
    Egress(ledger, sent).pass_error(seal(ValueError()), "r-1", reason="EXPIRED", objects={"x": b"abc"})
    (line,) = ledger.lines()
    assert (sent.bytes_of(line), line["reason"]) == (b"abc", "EXPIRED")


def test_with_keeping_off_only_hashes_stay(tmp_path: Path) -> None:
    sent, ledger, objects = passed(tmp_path, days=0)
    (line,) = ledger.lines()
    assert len(line["objects"]) == len(objects)
    assert sent.bytes_of(line) is None
    assert not sent.folder.exists()


def test_what_is_older_than_the_period_is_deleted_and_the_rest_is_not(tmp_path: Path) -> None:
    sent, ledger, objects = passed(tmp_path, days=2)
    old = time.time() - 2.01 * 86_400
    os.utime(sent.folder / "1.bin", (old, old))
    Egress(ledger, sent).pass_error(seal(ValueError()), "r-1", objects={"x": b"abc"})
    first, second = ledger.lines()
    assert sent.bytes_of(first) is None
    assert sent.bytes_of(second) == b"abc"
    assert objects
    assert Sent(sent.folder, 0).prune() == 1
    assert list(sent.folder.iterdir()) == []


@pytest.mark.parametrize(
    "change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"?" + b[1:], lambda b: b""]
)
def test_kept_bytes_that_were_changed_are_not_shown(change: object, tmp_path: Path) -> None:
    sent, ledger, _ = passed(tmp_path, days=1)
    file = sent.folder / "1.bin"
    file.write_bytes(change(file.read_bytes()))  # type: ignore[operator]
    (line,) = ledger.lines()
    with pytest.raises(DataError, match="not those that left"):
        sent.bytes_of(line)


def test_nothing_passes_whose_bytes_should_be_kept_and_can_not_be(tmp_path: Path) -> None:
    (tmp_path / "sent").write_text("no folder")
    with pytest.raises(DataError, match="nothing was sent"):
        passed(tmp_path, days=1)
    assert not (tmp_path / "ledger.jsonl").exists()
