"""A real archive, Debian's Orthanc, on loopback, full of invented images: asked by DICOMweb, or pushing."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from federation_processes import free_port, wait_for

from fedai.demo.hospital import write_image

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
IMAGES_OF_A_PATIENT = 5


def missing() -> str:
    """What keeps Orthanc from being started here, '' if nothing does."""
    if shutil.which("Orthanc") is None:
        return "Orthanc is not installed (apt-get install orthanc orthanc-dicomweb)"
    return "" if PLUGIN.exists() else "Orthanc's DICOMweb plugin is not installed (orthanc-dicomweb)"


@dataclass(frozen=True)
class Orthanc:
    """A running archive: its web address, and the port at which it looks for the receiver."""

    url: str
    receiver_port: int

    @property
    def dicomweb(self) -> str:
        return f"{self.url}/dicom-web"

    def call(self, path: str, body: bytes | None = None) -> Any:
        """The answer of its own interface. Raises OSError where it refuses."""
        request = urllib.request.Request(f"{self.url}{path}", data=body)  # noqa: S310
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")

    def fill(self, folder: Path, number: int) -> list[str]:
        """Invent so many images of 16 x 16 pixels and store them; gives their SOP Instance UIDs."""
        uids = []
        for n in range(number):
            pixels = np.random.default_rng(n).integers(0, 4096, (16, 16), np.uint16)
            path = folder / f"{n}.dcm"
            path.parent.mkdir(exist_ok=True, parents=True)
            uids.append(write_image(path, pixels, patient=f"P{n // IMAGES_OF_A_PATIENT}", bits=12))
            self.call("/instances", path.read_bytes())
        assert self.call("/statistics")["CountInstances"] == number
        return uids

    def push(self, instances: list[str]) -> bool:
        """C-STORE some instances to the receiver; whether all were acknowledged."""
        body = json.dumps({"Resources": instances, "Synchronous": True, "Permissive": False}).encode()
        try:
            self.call("/modalities/fedai/store", body)
        except (urllib.error.URLError, OSError):
            return False
        return True


@contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """An archive of its own below `folder`, bound to loopback, until the end."""
    web, dicom, receiver = free_port(), free_port(), free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
        "HttpPort": web, "DicomPort": dicom, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "DicomAet": "PACS", "DicomModalities": {"fedai": ["FEDAI", "127.0.0.1", receiver]},
        "HttpBindAddresses": ["127.0.0.1"], "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True},
        "DicomScuTimeout": 10, "StorageCompression": False, "OverwriteInstances": True,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(settings))
    archive = Orthanc(f"http://127.0.0.1:{web}", receiver)
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            wait_for(lambda: _answers(archive, process), 60, "Orthanc")
            yield archive
        finally:
            process.terminate()
            process.wait(timeout=60)


def _answers(archive: Orthanc, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "Orthanc ended: see orthanc.log"
    try:
        return bool(archive.call("/system"))
    except OSError:
        return False
