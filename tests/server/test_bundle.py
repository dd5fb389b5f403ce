"""The bundle is the same bytes everywhere and carries no code."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest
from fedai_server import bundle

import fedai
from fedai.errors import ConfigError
from fedai.release import BUNDLE_SHA256


def test_the_built_bundle_has_the_hash_of_the_release() -> None:
    assert hashlib.sha256(bundle.build_bundle()).hexdigest() == BUNDLE_SHA256
    assert bundle.release_bundle() == bundle.build_bundle()


def test_date_and_mode_of_the_files_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "fedai_server"
    shutil.copytree(str(files("fedai_server") / "flower_app"), copy / "flower_app")
    for path in (copy / "flower_app").iterdir():
        path.chmod(0o755)
        os.utime(path, (1, 1))
    monkeypatch.setattr(bundle, "files", lambda package: copy)
    assert hashlib.sha256(bundle.build_bundle()).hexdigest() == BUNDLE_SHA256


def test_another_process_zone_and_language_build_the_same_bytes() -> None:
    code = "import hashlib, fedai_server.bundle as b; print(hashlib.sha256(b.build_bundle()).hexdigest())"
    environment = {**os.environ, "TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == BUNDLE_SHA256


def test_the_bundle_holds_two_files_and_no_code() -> None:
    with zipfile.ZipFile(io.BytesIO(bundle.build_bundle())) as opened:
        assert sorted(opened.namelist()) == [".info/CONTENT", "LICENSE", "pyproject.toml"]
        project = tomllib.loads(opened.read("pyproject.toml").decode())
    assert project["project"]["dependencies"] == []
    assert project["project"]["version"] == fedai.__version__
    assert project["tool"]["flwr"]["app"]["config"] == {"study": ""}
    assert project["tool"]["flwr"]["app"]["components"] == {
        "serverapp": "fedai_server.server_app:app",
        "clientapp": "fedai_site.client_app:app",
    }


def test_an_installation_that_builds_another_bundle_starts_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "BUNDLE_SHA256", "0" * 64)
    with pytest.raises(ConfigError, match="builds the bundle"):
        bundle.release_bundle()
