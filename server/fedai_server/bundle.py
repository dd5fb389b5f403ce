"""The app bundle that Flower wants for a run: two small files without code, the same bytes in every build."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from fedai.errors import ConfigError
from fedai.release import BUNDLE_SHA256

BUNDLE_FILES = ("LICENSE", "pyproject.toml")


def build_bundle() -> bytes:
    """Build the bundle from the files of flower_app/ (no dates, modes or paths of this machine go in)."""
    from flwr.cli.build import build_fab_from_files

    folder = files("fedai_server") / "flower_app"
    return bytes(build_fab_from_files({name: (folder / name).read_bytes() for name in BUNDLE_FILES})[0])


def release_bundle() -> bytes:
    """The bundle of this release. Raises ConfigError if what was built is not what sites will accept."""
    content = build_bundle()
    built = hashlib.sha256(content).hexdigest()
    if built != BUNDLE_SHA256:
        raise ConfigError(
            f"this installation builds the bundle {built[:12]}, the release has {BUNDLE_SHA256[:12]}",
            hint="install the release again with the versions of its constraints.txt",
        )
    return content
