"""How a MONAI bundle reads images: as the sites did that trained the model. Its text goes out with each
bundle (fedai/bundles.py), where it is `scripts/images.py`.

MONAI's readers bring arrays and, of DICOM files, elements as DICOM JSON. What sites do with those and this
module doesn't is refused, not left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from fedai.preparation import prepare
from fedai.tasks.classification import to_input

PROJECTIONS = frozenset({"CR", "DX", "MG", "RG", "RF", "XA", "IO", "PX"})
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
PADDING, FRAMES, MODALITY_LUT, VOI_LUT = "00280120", "00280008", "00283000", "00283010"
MODALITY, PHOTOMETRIC, VOI_FUNCTION = "00080060", "00280004", "00281056"
CENTER, WIDTH = "00281050", "00281051"
NAME = "filename_or_obj"
READ_MODES = ("1", "L", "I", "I;16", "I;16B", "F", "RGB", "RGBA")  # of Pillow; palettes and CMYK aren't


def to_network(image: MetaTensor, size: tuple[int, int], lower: float, upper: float) -> MetaTensor:
    """float32 [1, rows, columns] for the network, from float32 [C, h, w] of MONAI's readers with C 1, or 3 or
    4 of a colour image. Of what was known about the image the file's name is kept.

    Raises ValueError for an image that can't be shown as the sites show it.
    """
    mode = image.meta.get("mode", "L")
    if mode not in READ_MODES:
        raise ValueError(f"an image of mode {mode} is not read here: write it in grey")
    tags = {key: value for key, value in image.meta.items() if isinstance(value, Mapping)}
    pixels = _seen(_grey(np.asarray(image.cpu().numpy(), dtype=np.float32)), tags)
    shown = prepare(pixels, size, lower, upper)
    prepared = to_input(shown[None, None], torch.device("cpu"))[0]
    return MetaTensor(prepared, meta={NAME: image.meta[NAME]})


def _grey(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    if channels.ndim == 3 and len(channels) == 1:
        return np.asarray(channels[0])
    if channels.ndim == 3 and len(channels) in (3, 4):
        return np.asarray(np.moveaxis(channels[:3], 0, -1) @ LUMINANCE)
    raise ValueError(f"an image of shape {channels.shape} is not one grey or colour image")


def _seen(pixels: NDArray[np.float32], tags: Mapping[str, Any]) -> NDArray[np.float32]:
    """Bright meaning much signal; of a projection radiograph what its window shows."""
    photometric = str(_first(tags, PHOTOMETRIC, "MONOCHROME2"))
    projects = _first(tags, MODALITY, "") in PROJECTIONS
    unread = [name for name, is_there in _unread(tags, photometric, projects).items() if is_there]
    if unread:
        raise ValueError(f"{unread[0]} is not read here: write the image as .npy, as it is to be seen")
    seen = _windowed(pixels, tags) if projects else pixels
    return np.asarray(seen.max() + seen.min() - seen) if photometric == "MONOCHROME1" else seen


def _unread(tags: Mapping[str, Any], photometric: str, projects: bool) -> dict[str, bool]:
    return {
        f"PhotometricInterpretation {photometric}": photometric not in ("MONOCHROME1", "MONOCHROME2", "RGB"),
        "padding": PADDING in tags,
        "an object of several frames": int(_first(tags, FRAMES, 1)) > 1,
        "a modality LUT": MODALITY_LUT in tags,
        "a VOI LUT": projects and VOI_LUT in tags,
        "a sigmoid window": projects and _first(tags, VOI_FUNCTION, "LINEAR") == "SIGMOID",
    }


def _windowed(pixels: NDArray[np.float32], tags: Mapping[str, Any]) -> NDArray[np.float32]:
    """Cut at the ends of the first window (PS3.3 C.11.2.1.2), unless it is none or shows nothing."""
    center, width = (float(_first(tags, tag, "nan")) for tag in (CENTER, WIDTH))
    is_exact = _first(tags, VOI_FUNCTION, "LINEAR") == "LINEAR_EXACT"
    if not (width > 0 if is_exact else width >= 1):
        return pixels
    middle, half = (center, width / 2) if is_exact else (center - 0.5, (width - 1) / 2)
    seen = np.clip(pixels, middle - half, middle + half)
    return seen if np.ptp(seen) > 0 else pixels


def _first(tags: Mapping[str, Any], tag: str, otherwise: Any) -> Any:
    values = tags.get(tag, {}).get("Value") or [otherwise]
    return otherwise if values[0] is None else values[0]
