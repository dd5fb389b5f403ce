"""What `phantom` draws by Fourier transform: blurs, texture, and the coarse grid's way to full size."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

SIZE = 512  # rows and columns of every image
COARSE = SIZE // 2  # fine structure is drawn on this grid and interpolated

Image = NDArray[np.float32]


@cache
def radial_frequency(size: int) -> Image:
    """Radial frequency of each bin of a real transform, cycles per pixel, float32 [size, size // 2 + 1]."""
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    frequency: Image = np.hypot(rows, columns).astype(np.float32)
    return frequency


@cache
def gaussian(sigma: float, size: int = SIZE) -> Image:
    """Transfer function of a Gaussian blur of `sigma` pixels."""
    transfer: Image = np.exp(-2 * (np.pi * sigma * radial_frequency(size)) ** 2).astype(np.float32)
    return transfer


@cache
def cloud() -> Image:
    """Amplitudes of a 1/f texture of unit variance, on the coarse grid."""
    frequency = radial_frequency(COARSE)
    amplitude = np.where(frequency > 0, 1 / np.maximum(frequency, 0.008) ** 1.3, 0)
    spectrum: Image = (amplitude / np.sqrt((amplitude**2).mean())).astype(np.float32)
    return spectrum


def interpolate(spectrum: NDArray[np.complexfloating]) -> Image:
    """The coarse grid's spectrum as a picture of twice its rows and columns."""
    half, padded = COARSE // 2, np.zeros((SIZE, SIZE // 2 + 1), np.complex64)
    padded[:half, :half] = spectrum[:half, :half]
    padded[-half:, :half] = spectrum[-half:, :half]
    return np.fft.irfft2(padded * 4, s=(SIZE, SIZE)).astype(np.float32)


def detector_transfer(kernel: float) -> Image:
    """Transfer function of a console: blur of `kernel` pixels, or sharpening by -`kernel`."""
    if kernel >= 0:
        return gaussian(kernel)
    return gaussian(0.5) * (1 + np.float32(-kernel) * (1 - gaussian(3.0)))
