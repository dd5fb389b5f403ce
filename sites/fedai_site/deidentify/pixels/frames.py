"""Frames out of a data set and back into it: stored values as they are, in one layout.

Only frames that were changed are encoded again, in the same transfer syntax where a lossless encoder for it
is
here (native, RLE, JPEG 2000); otherwise the whole object becomes Explicit VR Little Endian.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames, get_frame
from pydicom.pixels import convert_color_space, get_decoder, get_encoder
from pydicom.uid import JPEG2000, UID, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from fedai_site.deidentify.reading import FAULTS
from fedai_site.quarantine import Quarantine, Reason

Stored = NDArray[Any]
"""One frame of stored values: (rows, columns) or (rows, columns, samples), native byte order."""
VIDEO = (
    "1.2.840.10008.1.2.4.100",  # MPEG-2
    "1.2.840.10008.1.2.4.101",
    "1.2.840.10008.1.2.4.102",  # MPEG-4
    "1.2.840.10008.1.2.4.103",
    "1.2.840.10008.1.2.4.104",
    "1.2.840.10008.1.2.4.105",
    "1.2.840.10008.1.2.4.106",
    "1.2.840.10008.1.2.4.107",  # HEVC
    "1.2.840.10008.1.2.4.108",
    "1.2.840.10008.1.2.7.",  # SMPTE ST 2110
)
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
LOSSY = ("1.2.840.10008.1.2.4.50", JPEG_EXTENDED, "1.2.840.10008.1.2.4.81")
"""Pixels that were in one of these stay marked as lossy for ever (PS3.3 C.7.6.1.1.5)."""
YBR = frozenset({"YBR_FULL", "YBR_FULL_422"})
FLOATS = {"FloatPixelData": "<f4", "DoubleFloatPixelData": "<f8"}
ENCODERS = {RLELossless: RLELossless, JPEG2000Lossless: JPEG2000Lossless, JPEG2000: JPEG2000Lossless}
"""Transfer syntaxes that can be written, and the lossless encoder whose frames they may hold (PS3.5
A.4.4).
"""
FAULTS_AND_REFUSALS: tuple[type[Exception], ...] = (*FAULTS, NotImplementedError)


@dataclass(frozen=True)
class Layout:
    """How the frames are to be understood. `colour` is the colour space that they were decoded to."""

    element: str
    syntax: UID
    count: int
    rows: int
    columns: int
    samples: int
    colour: str


def layout(dataset: Dataset) -> Layout | None:
    """The layout; None for an object that shows nothing. Raises Quarantine for what can't be looked at."""
    element = next((name for name in ("PixelData", *FLOATS) if name in dataset), None)
    if element is None or _is_stub(dataset, element):
        return None
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if syntax.startswith(VIDEO):
        raise Quarantine(Reason.VIDEO)
    try:
        return Layout(
            element,
            syntax,
            max(1, int(dataset.get("NumberOfFrames") or 1)),
            int(dataset.Rows),
            int(dataset.Columns),
            int(dataset.get("SamplesPerPixel") or 1),
            str(dataset.get("PhotometricInterpretation") or "MONOCHROME2"),
        )
    except FAULTS_AND_REFUSALS as error:
        raise Quarantine(Reason.PIXELS_NOT_EXAMINED, type(error).__name__) from None


def _is_stub(dataset: Dataset, element: str) -> bool:
    """Whether the pixel element is no picture: no size is stated, and no two of its bytes differ."""
    value = dataset[element].value
    return "Rows" not in dataset and "Columns" not in dataset and len(set(value or b"")) <= 1


def read(dataset: Dataset, found: Layout) -> Iterator[tuple[Stored, str]]:
    """Each frame and its colour space, one at a time. Raises Quarantine if one can't be decoded."""
    count = 0
    try:
        for stored, colour in _decoded(dataset, found):
            if stored.shape[:2] != (found.rows, found.columns):
                raise Quarantine(Reason.PIXELS_NOT_EXAMINED, "a frame of another size")
            count += 1
            plain = stored.astype(stored.dtype.newbyteorder("="), copy=False)
            yield _without_unused_bits(plain, dataset, found), colour
    except FAULTS_AND_REFUSALS as error:
        raise Quarantine(Reason.PIXELS_NOT_EXAMINED, type(error).__name__) from None
    if count != found.count:
        raise Quarantine(Reason.PIXELS_NOT_EXAMINED, f"{count} frames of {found.count}")


def _without_unused_bits(stored: Stored, dataset: Dataset, found: Layout) -> Stored:
    """Words that were encoded, with their sign repeated above their stored bits if they have one, else zeros
    (PS3.5 8.1.1). Raises Quarantine if anything else stands there.
    """
    bits, size = int(dataset.get("BitsStored") or 0), stored.dtype.itemsize * 8
    is_whole = stored.dtype.kind not in "iu" or not 0 < bits < size
    if found.element in FLOATS or is_whole or not _is_encapsulated(found):
        return stored
    shifted = stored << (size - bits)
    words = shifted.view(f"{'ui'[int(dataset.get('PixelRepresentation') or 0)]}{size // 8}") >> (size - bits)
    words = words.view(stored.dtype)
    is_cut = (stored.view(f"u{size // 8}") >> bits == 0) | (words == stored)
    if not is_cut.all():
        raise Quarantine(Reason.OVERLAY_IN_PIXELS)
    return words


def _decoded(dataset: Dataset, found: Layout) -> Iterator[tuple[Stored, str]]:
    if found.element in FLOATS:
        values = np.frombuffer(dataset[found.element].value, FLOATS[found.element])
        for frame in values.reshape(found.count, found.rows, found.columns):
            yield frame, found.colour
    elif int(dataset.BitsAllocated) == 1 and not _is_encapsulated(found):
        bits = _unpacked(dataset, found)[: found.count * found.rows * found.columns * found.samples]
        for frame in bits.reshape(found.count, found.rows, found.columns):
            yield frame, found.colour
    else:
        for index in range(found.count):
            yield decoded(dataset, found, index)


def decoded(dataset: Dataset, found: Layout, index: int) -> tuple[Stored, str]:
    """One frame of encapsulated or native pixels and its colour space, as the decoders give them.

    Raises what they raise.
    """
    if found.syntax == JPEG_EXTENDED and int(dataset.BitsStored) > 8:
        data = get_frame(dataset.PixelData, index, number_of_frames=found.count)
        return _twelve_bits(data, dataset, found), found.colour
    options = {"correct_unused_bits": False} if _is_encapsulated(found) else {}
    stored, meta = get_decoder(found.syntax).as_array(dataset, index=index, raw=True, **options)
    return stored, str(meta["photometric_interpretation"])


def _is_encapsulated(found: Layout) -> bool:
    return bool(found.syntax.is_compressed and not found.syntax.is_deflated)


def _unpacked(dataset: Dataset, found: Layout) -> NDArray[np.uint8]:
    """All single bits one after another: frames need not begin at a byte (PS3.5 8.1.1)."""
    value = bytearray(dataset[found.element].value)
    if _in_big_words(dataset, found):
        value = _swapped(value)
    return np.unpackbits(np.frombuffer(value, np.uint8), bitorder="little")


def _in_big_words(dataset: Dataset, found: Layout) -> bool:
    return not found.syntax.is_little_endian and dataset[found.element].VR == "OW"


def _twelve_bits(data: bytes, dataset: Dataset, found: Layout) -> Stored:
    """JPEG Extended with 12 bits, which pydicom refuses: by gdcm itself. uint16 (rows, columns)."""
    import gdcm  # type: ignore[import-untyped]

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((found.columns, found.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(found.colour)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(found.syntax))))
    bits = int(dataset.BitsStored)
    image.SetPixelFormat(
        gdcm.PixelFormat(found.samples, 16, bits, bits - 1, int(dataset.PixelRepresentation))
    )
    values = np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), "<u2")
    return values.reshape(found.rows, found.columns).copy()


def write(dataset: Dataset, found: Layout, changed: dict[int, Stored]) -> str:
    """Put changed frames (by number) back. Returns what was done: "in place", "re-encoded" or "native".

    Where they had to become RGB, `changed` holds what was really written. Nothing but the pixel element, and
    what describes its encoding, changes.
    """
    if found.element in FLOATS or not _is_encapsulated(found):
        return _in_place(dataset, found, changed)
    if found.syntax in ENCODERS and _encode(dataset, found, changed):
        return "re-encoded"
    _to_native(dataset, found, changed)
    return "native"


def _in_place(dataset: Dataset, found: Layout, changed: dict[int, Stored]) -> str:
    if found.element == "PixelData" and int(dataset.BitsAllocated) == 1:
        dataset[found.element].value = _packed(dataset, found, changed)
        return "in place"
    value = bytearray(dataset[found.element].value)
    for number, stored in changed.items():
        data = _native_bytes(dataset, found, stored)
        in_words = stored.dtype.itemsize == 1 and _in_big_words(dataset, found)
        value = _swapped(value) if in_words else value
        value[number * len(data) : (number + 1) * len(data)] = data
        value = _swapped(value) if in_words else value
    dataset[found.element].value = bytes(value)
    return "in place"


def _swapped(value: bytearray) -> bytearray:
    """Bytes exchanged in pairs: 8-bit samples in big-endian words (PS3.5 8.1.2)."""
    swapped = bytearray(value)
    even = len(value) // 2 * 2
    swapped[0:even:2], swapped[1:even:2] = value[1:even:2], value[0:even:2]
    return swapped


def _native_bytes(dataset: Dataset, found: Layout, stored: Stored) -> bytes:
    """A frame in the data set's own byte order, plane order and subsampling."""
    if stored.ndim == 3 and dataset.PhotometricInterpretation == "YBR_FULL_422":
        packed = np.empty((found.rows, found.columns // 2, 4), stored.dtype)
        packed[..., :2] = stored[..., 0].reshape(found.rows, -1, 2)
        packed[..., 2:] = stored[:, ::2, 1:]
        stored = packed
    elif stored.ndim == 3 and int(dataset.get("PlanarConfiguration") or 0) == 1:
        stored = stored.transpose(2, 0, 1)
    order = stored.dtype.newbyteorder("<" if found.syntax.is_little_endian else ">")
    return np.ascontiguousarray(stored).astype(order).tobytes()


def _packed(dataset: Dataset, found: Layout, changed: dict[int, Stored]) -> bytes:
    bits = _unpacked(dataset, found)
    size = found.rows * found.columns * found.samples
    for number, stored in changed.items():
        bits[number * size : (number + 1) * size] = stored.reshape(-1)
    packed = bytearray(np.packbits(bits, bitorder="little").tobytes())
    return bytes(_swapped(packed) if _in_big_words(dataset, found) else packed)


def _encode(dataset: Dataset, found: Layout, changed: dict[int, Stored]) -> bool:
    """Encode changed frames, keep the others' bytes. False if that can't be done without loss."""
    colour = str(dataset.PhotometricInterpretation)
    single = len(changed) == found.count
    if found.syntax != RLELossless and found.samples > 1 and colour not in ("YBR_RCT", "RGB") and not single:
        return False
    try:
        encoded = {number: _encoded(dataset, found, stored) for number, stored in changed.items()}
        frames = list(generate_frames(dataset.PixelData, number_of_frames=found.count))
    except FAULTS_AND_REFUSALS:
        return False
    if found.syntax != RLELossless and found.samples > 1 and colour not in ("YBR_RCT", "RGB"):
        dataset.PhotometricInterpretation = "YBR_RCT"
    kept = [encoded.get(number, frame) for number, frame in enumerate(frames)]
    dataset["PixelData"].value = encapsulate([frame + b"\0" * (len(frame) % 2) for frame in kept])
    _without_offsets(dataset)
    return True


def _encoded(dataset: Dataset, found: Layout, stored: Stored) -> bytes:
    encoder = get_encoder(ENCODERS[found.syntax])
    colour = str(dataset.PhotometricInterpretation)
    if found.syntax != RLELossless and found.samples > 1:
        colour = "RGB" if colour == "RGB" else "YBR_RCT"
    data: bytes = encoder.encode(
        stored,
        rows=found.rows,
        columns=found.columns,
        samples_per_pixel=found.samples,
        bits_allocated=stored.dtype.itemsize * 8,
        bits_stored=int(dataset.BitsStored),
        pixel_representation=int(dataset.PixelRepresentation),
        photometric_interpretation=colour,
        planar_configuration=0,
        number_of_frames=1,
    )
    return data


def _to_native(dataset: Dataset, found: Layout, changed: dict[int, Stored]) -> None:
    """The whole object as Explicit VR Little Endian, colour by pixel: RGB, which every image IOD that has
    colour allows, unlike YBR_FULL. `changed` holds the frames as written afterwards.
    """
    parts: list[bytes] = []
    colour, kind = found.colour, np.dtype("u1")
    for number, (stored, colour_) in enumerate(read(dataset, found)):
        frame, colour, kind = changed.get(number, stored), colour_, stored.dtype
        if colour in YBR:
            frame, colour = convert_color_space(frame, "YBR_FULL", "RGB"), "RGB"
        if number in changed:
            changed[number] = frame
        parts.append(np.ascontiguousarray(frame).astype(frame.dtype.newbyteorder("<")).tobytes())
    data = b"".join(parts)
    element = dataset["PixelData"]
    element.value = data + b"\0" * (len(data) % 2)
    element.VR = "OB" if kind.itemsize == 1 else "OW"
    element.is_undefined_length = False
    dataset.BitsAllocated = kind.itemsize * 8
    if found.samples > 1:
        dataset.PhotometricInterpretation = colour
        dataset.PlanarConfiguration = 0
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if found.syntax in LOSSY:
        dataset.LossyImageCompression = "01"
    _without_offsets(dataset)


def _without_offsets(dataset: Dataset) -> None:
    """The extended offset table speaks about the old frames (PS3.3 C.7.6.3.1.8)."""
    for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if name in dataset:
            del dataset[name]
