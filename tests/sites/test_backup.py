from __future__ import annotations

import json
import sqlite3
import stat
import tarfile
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from fedai_site import backup
from fedai_site.cohort import select
from fedai_site.consents import Consents
from fedai_site.home import SiteHome
from fedai_site.witness import ledger_of, verify
from homes import make_home
from studies import small_study

from fedai.cli.app import run
from fedai.errors import ConfigError, DataError, FedaiError


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    return make_home(tmp_path, patients=6)


def test_a_restored_home_has_the_same_cohort_splits_consents_and_ledger(
    home: SiteHome, tmp_path: Path
) -> None:
    before = select(home.folder, small_study())
    patient = before.splits["train"][0].patient
    with Consents(home.folder) as consents:
        consents.withdraw([(patient, "")])
    before = select(home.folder, small_study())
    ledger = ledger_of(home)
    for number in range(3):
        ledger.append(kind="error", code=f"{number}")
    backup.back_up(home, tmp_path / "north.tar")
    restored = backup.restore(tmp_path / "north.tar", tmp_path / "again")
    after = select(restored.folder, small_study())
    assert (after.flow, after.excluded) == (before.flow, before.excluded)
    assert {name: [case.id for case in cases] for name, cases in after.splits.items()} == {
        name: [case.id for case in cases] for name, cases in before.splits.items()
    }
    assert verify(restored, None).lines == verify(home, None).lines == 3
    assert restored.pseudonym_key.read_bytes() == home.pseudonym_key.read_bytes()


def test_a_backup_is_for_its_owner_alone_and_holds_no_image(home: SiteHome, tmp_path: Path) -> None:
    manifest = backup.back_up(home, tmp_path / "north.tar")
    assert stat.S_IMODE((tmp_path / "north.tar").stat().st_mode) == 0o600
    assert not any(name.startswith(("clean", "cache", "sent", "inbox")) for name in manifest["files"])
    restored = backup.restore(tmp_path / "north.tar", tmp_path / "again")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in restored.folder.rglob("*") if path.is_file()}
    assert modes <= {0o600, 0o644}
    assert stat.S_IMODE(restored.pseudonym_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(restored.folder.stat().st_mode) == 0o700


def test_a_catalogue_that_is_being_written_is_backed_up_whole(home: SiteHome, tmp_path: Path) -> None:
    with sqlite3.connect(home.catalogue) as writer:
        writer.execute("DELETE FROM objects")  # not committed
        backup.back_up(home, tmp_path / "north.tar")
        writer.rollback()
    restored = backup.restore(tmp_path / "north.tar", tmp_path / "again")
    assert select(restored.folder, small_study()).flow == select(home.folder, small_study()).flow


def changed(source: Path, target: Path, **changes: bytes | None) -> Path:
    """The backup with members changed (None: left out); `link` adds a symbolic link of that target."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            content = old.extractfile(member)
            assert content is not None
            data = changes.get(Path(member.name).name.partition(".")[0], content.read())
            if data is not None:
                member.size = len(data)
                new.addfile(member, BytesIO(data))
        if link := changes.get("link"):
            entry = tarfile.TarInfo("keys/more")
            entry.type, entry.linkname = tarfile.SYMTYPE, link.decode()
            new.addfile(entry)
    return target


@pytest.mark.parametrize(
    "changes",
    [{"ledger": b"{}\n"}, {"agent": b"another key"}, {"MANIFEST": None}, {"MANIFEST": b"[]"},
     {"MANIFEST": b"{"}, {"site": None}, {"link": b"/etc/passwd"},
     {"MANIFEST": json.dumps({"form": 99, "files": {}}).encode()}],
)  # fmt: skip
def test_a_backup_that_was_changed_is_refused_and_leaves_nothing(
    home: SiteHome, tmp_path: Path, changes: dict[str, bytes | None]
) -> None:
    ledger_of(home).append(kind="error", code="1")
    backup.back_up(home, tmp_path / "north.tar")
    bad = changed(tmp_path / "north.tar", tmp_path / "bad.tar", **changes)
    with pytest.raises(DataError):
        backup.restore(bad, tmp_path / "again")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".restore", "again"))]


def test_a_member_outside_of_the_home_is_refused(home: SiteHome, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../outside"), BytesIO())
    with pytest.raises(DataError):
        backup.restore(tmp_path / "bad.tar", tmp_path / "again")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("cut", [0, 10, 5000])
def test_a_cut_backup_is_refused(home: SiteHome, tmp_path: Path, cut: int) -> None:
    backup.back_up(home, tmp_path / "north.tar")
    (tmp_path / "bad.tar").write_bytes((tmp_path / "north.tar").read_bytes()[:cut])
    with pytest.raises(DataError):
        backup.restore(tmp_path / "bad.tar", tmp_path / "again")


def test_nothing_that_is_there_is_written_over(home: SiteHome, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(ConfigError):
        backup.back_up(home, tmp_path / "there")
    with pytest.raises(ConfigError):
        backup.back_up(home, home.folder / "north.tar")
    backup.back_up(home, tmp_path / "north.tar")
    with pytest.raises(ConfigError):
        backup.restore(tmp_path / "north.tar", home.folder)
    assert (tmp_path / "there").read_text() == "mine"


def test_the_commands_say_what_to_do_next(
    home: SiteHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["site", "backup", str(home.folder), str(tmp_path / "north.tar"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"]
    assert run(["site", "restore", str(tmp_path / "north.tar"), str(tmp_path / "again")]) == 0
    assert "withdraw again" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("catalogue.sqlite", b"no database"),
        ("keys/pseudonym.key", b"short"),
        ("MANIFEST.json", b"[" * 100_000),
    ],
)
def test_a_backup_of_a_damaged_home_is_refused(
    home: SiteHome, tmp_path: Path, member: str, content: bytes
) -> None:
    backup.back_up(home, tmp_path / "north.tar")
    with tarfile.open(tmp_path / "north.tar") as archive:
        files = {one.name: archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]
    files[member] = content
    if member != backup.MANIFEST:
        manifest = json.loads(files[backup.MANIFEST])
        manifest["files"][member] = sha256(content).hexdigest()
        files[backup.MANIFEST] = json.dumps(manifest).encode()
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, BytesIO(data))
    with pytest.raises(FedaiError):
        backup.restore(tmp_path / "bad.tar", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_backup_that_is_not_there_is_told_as_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, what in (("nosuch", "there is no such file"), ("", "this is a folder, not a file")):
        assert run(["site", "restore", str(tmp_path / name), str(tmp_path / "again")]) == 2
        said = capsys.readouterr().err
        assert said.startswith(
            f"error: {tmp_path / name}: {what}\n  next: give a file that `fedai site backup`"
        )
    assert not (tmp_path / "again").exists()


def test_what_the_system_refuses_is_told_of_the_file_that_was_asked_for(
    home: SiteHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "gone" / "north.tar"
    assert run(["site", "backup", str(home.folder), str(target)]) == 2
    assert capsys.readouterr().err.startswith(f"error: No such file or directory: {target}\n")
    backup.back_up(home, tmp_path / "north.tar")
    folder = tmp_path / "gone" / "again"
    assert run(["site", "restore", str(tmp_path / "north.tar"), str(folder)]) == 2
    assert capsys.readouterr().err.startswith(f"error: No such file or directory: {folder}\n")
