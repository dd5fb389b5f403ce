from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fedai_server import pki
from fedai_site.deidentify.pseudonyms import create_secret
from fedai_site.fleet import WrongServer, probe
from fedai_site.home import SiteSettings, create_home, open_home, renew_key, write_private
from homes import CERTIFICATE, settings_for

from fedai.errors import ConfigError
from fedai.yamlfile import FileProblems, parse


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_home_has_its_folders_keys_and_settings(tmp_path: Path) -> None:
    home = create_home(tmp_path / "north", settings_for(tmp_path, threads=2))
    assert {path.name for path in home.folder.iterdir()} == {
        "approvals", "cache", "ca.pem", "clean", "keys", "runs", "site.yaml",
    }  # fmt: skip
    assert open_home(home.folder) == home
    assert home.settings.server.ca.read_text() == CERTIFICATE
    assert home.settings.threads == 2


def test_secrets_are_for_the_owner_only(tmp_path: Path) -> None:
    os.umask(0o022)
    home = create_home(tmp_path / "north", settings_for(tmp_path))
    assert mode(home.folder) == 0o700
    assert all(mode(path) == 0o700 for path in home.folder.iterdir() if path.is_dir())
    assert mode(home.private_key) == mode(home.pseudonym_key) == 0o600


def test_the_agents_key_is_a_p384_pair_and_the_pseudonym_key_256_random_bits(tmp_path: Path) -> None:
    homes = [create_home(tmp_path / name, settings_for(tmp_path, name)) for name in ("north", "east")]
    for home in homes:
        private = serialization.load_pem_private_key(home.private_key.read_bytes(), None)
        public = serialization.load_pem_public_key(home.public_key.read_bytes())
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        assert private.curve.name == "secp384r1"
        assert private.public_key() == public
        assert len(home.pseudonym_key.read_bytes()) == 32
    assert homes[0].private_key.read_bytes() != homes[1].private_key.read_bytes()
    assert homes[0].pseudonym_key.read_bytes() != homes[1].pseudonym_key.read_bytes()


def test_a_home_takes_a_copy_of_a_pseudonym_key_that_is_there_already(tmp_path: Path) -> None:
    key = tmp_path / "deid.key"
    create_secret(key)
    home = create_home(tmp_path / "north", settings_for(tmp_path), key)
    assert home.pseudonym_key.read_bytes() == key.read_bytes()
    assert mode(home.pseudonym_key) == 0o600


def test_a_pseudonym_key_that_is_none_or_open_to_others_makes_no_home(tmp_path: Path) -> None:
    key = tmp_path / "deid.key"
    for content, rights, why in [
        (b"short", 0o600, "5 bytes"),
        (bytes(32), 0o644, "other users"),
        (None, 0, "missing"),
    ]:
        key.unlink(missing_ok=True)
        if content is not None:
            key.write_bytes(content)
            key.chmod(rights)
        with pytest.raises(ConfigError, match=why):
            create_home(tmp_path / "north", settings_for(tmp_path), key)
        assert not (tmp_path / "north").exists()


def test_only_the_public_key_is_free_of_secrets(tmp_path: Path) -> None:
    home = create_home(tmp_path / "north", settings_for(tmp_path))
    assert b"PRIVATE" not in home.public_key.read_bytes()
    assert "PRIVATE" not in (home.folder / "site.yaml").read_text()


def test_a_home_can_be_opened_from_anywhere_and_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    create_home(Path("north"), settings_for(tmp_path))
    monkeypatch.chdir("/")
    assert open_home(tmp_path / "north").settings.server.ca.is_file()
    shutil.move(tmp_path / "north", tmp_path / "elsewhere")
    assert open_home(tmp_path / "elsewhere").settings.server.ca == tmp_path / "elsewhere" / "ca.pem"
    assert yaml.safe_load((tmp_path / "elsewhere" / "site.yaml").read_text())["server"]["ca"] == "ca.pem"


def test_an_existing_home_or_one_that_was_begun_is_left_alone(tmp_path: Path) -> None:
    home = create_home(tmp_path / "north", settings_for(tmp_path))
    before = home.private_key.read_bytes()
    for begun in (False, True):
        with pytest.raises(ConfigError, match="a site's home already"):
            create_home(home.folder, settings_for(tmp_path))
        assert home.private_key.read_bytes() == before
        if not begun:
            (home.folder / "site.yaml").unlink()


def test_a_missing_certificate_is_named_before_anything_is_made(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    settings.server.ca.unlink()
    with pytest.raises(ConfigError, match="no certificate at") as caught:
        create_home(tmp_path / "north", settings)
    assert "ask the coordinator" in caught.value.hint
    assert not (tmp_path / "north").exists()


def test_what_holds_two_authorities_is_refused_since_the_fingerprint_is_of_one(tmp_path: Path) -> None:
    pki.make_authority(tmp_path)
    settings, another = settings_for(tmp_path), (tmp_path / "ca.pem").read_text()
    home = create_home(tmp_path / "before", settings)
    settings.server.ca.write_text(CERTIFICATE + another)
    with pytest.raises(ConfigError, match="one certificate in PEM form, and that alone"):
        create_home(tmp_path / "north", settings)
    home.settings.server.ca.write_text(CERTIFICATE + another)
    with pytest.raises(WrongServer, match="that alone"):
        probe("127.0.0.1:9", home.settings.server.ca)


@pytest.mark.parametrize(
    "content", ["", "hello", "-----BEGIN PRIVATE KEY-----", CERTIFICATE + "-----BEGIN PRIVATE KEY-----"]
)
def test_what_is_no_certificate_or_holds_a_key_is_refused(content: str, tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    settings.server.ca.write_text(content)
    with pytest.raises(ConfigError, match="is not a certificate"):
        create_home(tmp_path / "north", settings)
    assert not (tmp_path / "north").exists()


def test_a_folder_that_is_no_home_is_named_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a site's home") as caught:
        open_home(tmp_path)
    assert "fedai site init" in caught.value.hint


def test_wrong_settings_are_told_with_their_places(tmp_path: Path) -> None:
    home = create_home(tmp_path / "north", settings_for(tmp_path))
    (home.folder / "site.yaml").write_text("name: North\nserver: {address: here, ca: ca.pem}\nthread: 2\n")
    with pytest.raises(FileProblems) as caught:
        open_home(home.folder)
    assert [problem.path for problem in caught.value.problems] == ["name", "server.address", "thread"]


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":8443", "host:0", "host:65536", "host:x", "host:-1", "h:²"]
)
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    text = yaml.safe_dump({"name": "a", "server": {"address": address, "ca": "x"}})
    with pytest.raises(FileProblems, match="write it as host:port"):
        parse(text.encode(), SiteSettings, "s.yaml")


def test_a_new_agents_key_leaves_the_rest_of_the_home_alone_and_keeps_the_old_one(tmp_path: Path) -> None:
    home = create_home(tmp_path / "north", settings_for(tmp_path))
    (home.folder / "node").write_text("7")
    before = {path: path.read_bytes() for path in home.folder.rglob("*") if path.is_file()}
    old = renew_key(home)
    assert old.read_bytes() == before[home.private_key] != home.private_key.read_bytes()
    assert mode(old) == mode(home.private_key) == 0o600
    private = serialization.load_pem_private_key(home.private_key.read_bytes(), None)
    assert serialization.load_pem_public_key(home.public_key.read_bytes()) == private.public_key()
    after = {path: path.read_bytes() for path in home.folder.rglob("*") if path.is_file()}
    changed = {path.name for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed == {"agent.key", "agent.pub", "node", old.name}
    assert renew_key(home) != old
    assert old.is_file()


def test_a_home_without_a_pair_gets_no_new_one(tmp_path: Path) -> None:
    home = create_home(tmp_path / "north", settings_for(tmp_path))
    home.private_key.unlink()
    with pytest.raises(ConfigError, match="are missing"):
        renew_key(home)
    assert not home.private_key.exists()


def test_a_private_file_is_never_written_over(tmp_path: Path) -> None:
    write_private(tmp_path / "key", b"one")
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "key", b"two")
    assert (tmp_path / "key").read_bytes() == b"one"
    assert mode(tmp_path / "key") == 0o600
