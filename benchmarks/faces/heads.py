"""Two real heads that anyone may have: an MR and a CT, from packages of Debian.

Volumes are (slices, rows, columns) float32; affines take (column, row, slice, 1) to LPS millimetres.
"""

from __future__ import annotations

import gzip
import struct
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CH2 = Path("/usr/share/mricron/templates/ch2.nii.gz")
CH2_BRAIN = Path("/usr/share/mricron/templates/ch2bet.nii.gz")
CRANIUM = Path("/usr/share/doc/invesalius-examples/examples/Cranium.inv3")
Volume = NDArray[np.float32]
Affine = NDArray[np.float64]


def ch2() -> tuple[Volume, Affine]:
    """The MR of a head (Colin), without its chin. Raises FileNotFoundError without mricron-data."""
    return _nifti(CH2)


def ch2_brain() -> NDArray[np.bool_]:
    """The brain of ch2 as its authors drew it. Raises FileNotFoundError without mricron-data."""
    return _nifti(CH2_BRAIN)[0] > 0


def cranium() -> tuple[Volume, Affine]:
    """The CT of a head in a head holder, tilted, in Hounsfield units. Its rows run from back to front.

    Raises FileNotFoundError without invesalius-examples.
    """
    with tarfile.open(_there(CRANIUM, "invesalius-examples")) as archive:
        name = next(name for name in archive.getnames() if name.endswith("matrix.dat"))
        member = archive.extractfile(name)
        assert member is not None
        values = np.frombuffer(member.read(), "<i2").reshape(108, 256, 256)
    affine = np.diag([0.957, -0.957, 1.5, 1.0])
    affine[1, 3] = 255 * 0.957
    return values.astype(np.float32), affine


def _nifti(path: Path) -> tuple[Volume, Affine]:
    """A NIfTI-1 file of single bytes in the scanner's space (its axes point right, forward and up)."""
    data = gzip.decompress(_there(path, "mricron-data").read_bytes())
    columns, rows, slices = struct.unpack_from("<3h", data, 42)
    kind, start = struct.unpack_from("<h", data, 70)[0], int(struct.unpack_from("<f", data, 108)[0])
    assert kind == 2, "not single bytes"
    affine = np.vstack([np.reshape(struct.unpack_from("<12f", data, 280), (3, 4)), [0, 0, 0, 1]])
    values = np.frombuffer(data, np.uint8, columns * rows * slices, start).reshape(slices, rows, columns)
    return values.astype(np.float32), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _there(path: Path, package: str) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path.name} is in Debian's package {package}")
    return path
