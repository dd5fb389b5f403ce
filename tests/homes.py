"""A site's home with real, small DICOM files in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedai_site.adding import add_data
from fedai_site.home import SiteHome, SiteSettings, create_home
from numpy.typing import NDArray

from fedai.cli.app import run
from fedai.demo.hospital import write_image

# Of an authority whose key nobody has any more.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBTDCB86ADAgECAgEBMAoGCCqGSM49BAMCMCMxITAfBgNVBAMMGGFuIGF1dGhv
cml0eSBvZiBub2JvZHknczAgFw0yNjAxMDEwMDAwMDBaGA8yMTI2MDEwMTAwMDAw
MFowIzEhMB8GA1UEAwwYYW4gYXV0aG9yaXR5IG9mIG5vYm9keSdzMFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEM7dUx2cgpI2KtPto//3MtYq7qsNOE/XCMP+Kd4A8
z5uCIjR+D8V09YvfzJcZEYuV3A6KgmxEXHiaIktXeQ7y1KMWMBQwEgYDVR0TAQH/
BAgwBgEB/wIBADAKBggqhkjOPQQDAgNIADBFAiEAy+5haPABpTyEY3mTuyT7erB5
XnrBFK9M44NtPiLTcgcCIHG7TIplc+OG5kFU3dIs0UJiSdltfLrrPm5QEQ23v1+L
-----END CERTIFICATE-----
"""


def settings_for(folder: Path, name: str = "north", **more: Any) -> SiteSettings:
    """Settings whose certificate authority lies in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = folder / "authority.pem"
    authority.write_text(CERTIFICATE)
    server = {"address": "fl.example.org:8443", "ca": str(authority)}
    return SiteSettings.model_validate({"name": name, "server": server, **more})


def make_home(folder: Path, name: str = "north", patients: int = 12, *, first: int = 0) -> SiteHome:
    """A home with two images of each patient; odd patients have a bright square and the label `nodule`."""
    home = create_home(folder / name, settings_for(folder / "server", name))
    add_patients(home, folder / f"{name}-export", range(first, first + patients))
    return home


def add_patients(home: SiteHome, export: Path, patients: range) -> None:
    """Write the patients' images and labels to `export` and add them to the home."""
    lines = ["PatientID,label"]
    for patient in patients:
        for number in (2 * patient, 2 * patient + 1):
            path = export / "images" / f"{number}.dcm"
            write_image(path, _picture(number, patient), patient=f"P{patient}", bits=12)
        lines.append(f"P{patient},{'nodule' if patient % 2 else 'clear'}")
    labels = export / "labels.csv"
    labels.write_text("\n".join(lines))
    add_data(home.folder, export / "images", labels)


def _picture(number: int, patient: int) -> NDArray[np.uint16]:
    pixels = np.random.default_rng(number).integers(0, 1500, (16, 16), np.uint16)
    if patient % 2:
        pixels[4:9, 4:9] += 2000
    return pixels


def told(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of `fedai site ... --json`."""
    capsys.readouterr()
    code = run(["site", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)
