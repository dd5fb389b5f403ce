"""The server's home: made whole or not at all, and nobody else may read it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from fedai_server import pki
from fedai_server.control import Control
from fedai_server.home import Settings, check_site_name, init_home, open_home, split_host_port, write_file
from fedai_server.processes import Supervisor

from fedai.errors import ConfigError
from fedai.yamlfile import load


def test_a_home_reads_back_as_it_was_made(tmp_path: Path) -> None:
    made = init_home(tmp_path / "home", public_host="fed.example.org", public_port=443, names=["192.0.2.7"])
    assert open_home(tmp_path / "home") == made
    assert made.address == "fed.example.org:443"
    assert pki.names_of((made.pki / "server.pem").read_bytes()) == (
        "fed.example.org", "192.0.2.7", "localhost", "127.0.0.1",
    )  # fmt: skip


def test_only_the_owner_may_read_secrets(tmp_path: Path) -> None:
    home = init_home(tmp_path / "home")
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    public = {home.pki / "ca.pem", home.pki / "server.pem", home.ledger_key.with_name("ledger.key.pub")}
    files = [path for path in home.folder.rglob("*") if path.is_file() and path not in public]
    assert len(files) == 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_home_that_lacks_keys_says_which(tmp_path: Path) -> None:
    home = init_home(tmp_path / "home")
    home.require_whole()
    (home.pki / "server.key").unlink()
    home.control_token.unlink()
    with pytest.raises(ConfigError, match=r"lacks pki/server\.key, secrets/control\.token"):
        home.require_whole()
    with pytest.raises(ConfigError, match="lacks"), Supervisor(home):
        pass
    with pytest.raises(ConfigError, match="lacks"):
        Control(home)


def test_two_homes_share_no_secret(tmp_path: Path) -> None:
    first, second = init_home(tmp_path / "a"), init_home(tmp_path / "b")
    assert first.control_token.read_bytes() != second.control_token.read_bytes()
    assert first.superexec_secret.read_bytes() != second.superexec_secret.read_bytes()
    assert len(first.superexec_secret.read_bytes()) >= 32


def test_an_existing_home_is_never_overwritten(tmp_path: Path) -> None:
    home = init_home(tmp_path / "home")
    before = {path: path.read_bytes() for path in home.folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="not empty"):
        init_home(tmp_path / "home")
    assert before == {path: path.read_bytes() for path in home.folder.rglob("*") if path.is_file()}


def test_a_home_with_a_wrong_name_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a DNS name"):
        init_home(tmp_path / "home", public_host="https://fed.example.org")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("public", "listens"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("::1", "::1"),
        ("192.0.2.7", "0.0.0.0"),  # noqa: S104
        ("fed.example.org", "0.0.0.0"),  # noqa: S104
        ("2001:db8::1", "::"),
    ],
)
def test_a_server_for_this_machine_listens_to_this_machine_alone(
    tmp_path: Path, public: str, listens: str
) -> None:
    assert init_home(tmp_path / "home", public_host=public).settings.listen_host == listens


def test_every_mistake_in_server_yaml_is_told_with_its_place(tmp_path: Path) -> None:
    home = init_home(tmp_path / "home")
    text = (home.folder / "server.yaml").read_text().replace("public_port: 8443", "public_port: 99999")
    (home.folder / "server.yaml").write_text(text + "max_connection: 9\nlisten_host: here\n")
    with pytest.raises(ConfigError) as error:
        open_home(home.folder)
    assert "server.yaml:" in str(error.value)
    (home.folder / "server.yaml").write_text(text.replace("max_connections", "max_connection"))
    with pytest.raises(ConfigError) as error:
        open_home(home.folder)
    assert "public_port" in str(error.value)
    assert "did you mean 'max_connections'" in str(error.value)


def test_the_example_under_configs_is_a_servers_settings() -> None:
    example = Path(__file__).parents[2] / "configs" / "server" / "server.yaml"
    assert load(example, Settings).names == ("192.0.2.10",)


def test_the_two_ports_must_differ(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must differ"):
        init_home(tmp_path / "home", public_port=9000, loopback_port=9000)


def test_a_folder_that_is_no_home_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        open_home(tmp_path)
    assert "fedai server init" in error.value.hint


@pytest.mark.parametrize("name", ["", "North", "../x", "a/b", "a b", "-a", "x" * 60, "a\n", ".", "ä"])
def test_what_could_not_be_a_file_name_is_no_sites_name(name: str) -> None:
    with pytest.raises(ConfigError):
        check_site_name(name)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a.example.org:8443", ("a.example.org", 8443)),
        ("a.example.org", ("a.example.org", 8443)),
        ("192.0.2.7:1", ("192.0.2.7", 1)),
        ("[2001:db8::1]:9", ("2001:db8::1", 9)),
        ("[::1]", ("::1", 8443)),
    ],
)
def test_addresses_are_taken_apart(text: str, parts: tuple[str, int]) -> None:
    assert split_host_port(text) == parts


@pytest.mark.parametrize(
    "text", ["", ":8443", "a:b", "a:0", "a:65536", "https://a", "a:1:2", "a b", "::1", "a..b", "-a"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        split_host_port(text)


def test_a_write_that_fails_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "file", b"old", mode=0o600)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space") as told:
        write_file(tmp_path / "file", b"new", mode=0o600)
    assert told.value.filename == str(tmp_path / "file"), "and not its scratch name"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"
