"""Paired resampling without rows: each patient has one secret weight per replicate, the same in every run.

A replicate of a sum over patients is the sum with each patient's part multiplied by its weight, drawn from
the standard normal distribution (the multiplier bootstrap: van der Vaart & Wellner, Weak Convergence and
Empirical Processes, 1996, 2.9). A site draws the weights from a key of its own and the test cases, so runs
on the same cases have the same weights: what two runs' replicates have in common is what their models have.

What they reveal: with rows D [sums, patients] and weights G [patients, REPLICATES] that nobody outside knows,
the columns of D G are independent normal vectors with covariance D Dᵀ. Whoever holds D Dᵀ (the sums of
products that a site sends anyway) could draw such columns without the site. Of all rows that the same weights
were drawn for (placements, calls; of two runs on the same cases) they reveal the products with each other,
as if they had been linked in one answer.

That the weights stay unknown rests on the key and on Philox, a generator for simulations: nobody is known to
find its key from its numbers, still less from sums of them, but it was not made as a cipher.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedai.metrics import Floats

REPLICATES = 1000
AT_ONCE = 1024  # patients whose weights are in memory together

Replicates = NDArray[np.float32]


def replicate(rows: NDArray[np.generic], seed: bytes) -> Replicates:
    """float32 [sums, REPLICATES] of rows [patients, sums], patients in the order of their names."""
    generator = _generator(seed)
    total = np.zeros((rows.shape[1], REPLICATES))
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        total += part.T.astype(np.float64) @ generator.standard_normal((len(part), REPLICATES))
    return total.astype(np.float32)


def mark_of_draws(seed: bytes) -> bytes:
    """32 bytes that are equal where the weights are: SHA-256 of the first patient's."""
    return hashlib.sha256(_generator(seed).standard_normal((1, REPLICATES)).tobytes()).digest()


def _generator(seed: bytes) -> np.random.Generator:
    key = int.from_bytes(hashlib.sha256(seed).digest()[:16], "big")
    return np.random.Generator(np.random.Philox(key=key))


def products_between(a: Replicates, b: Replicates, own_a: Floats, own_b: Floats, k: int) -> Floats:
    """Sums over patients of the products of run A's rows and run B's: [rows of A, rows of B].

    Rows are side-major, then models, then `k` classes. `own_a`, `own_b`: each run's own exact products. What
    the replicates miss of those of the two models at hand is added (half of each), so the variance of a
    difference between two models is that of its own replicates, whose relative error is √(2 / REPLICATES) =
    4.5% (2.2% of the standard error) however alike the models are.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    together = (x @ y.T / REPLICATES).reshape(2, -1, k, 2, len(y) // (2 * k), k)
    together += _missed(x, own_a, k)[:, :, :, :, None, :] / 2
    together += _missed(y, own_b, k).transpose(0, 2, 3, 1, 4)[:, None] / 2
    return together.reshape(len(x), len(y))


def _missed(rows: Floats, own: Floats, k: int) -> Floats:
    """Exact products minus the replicates', of each model with itself: [side, model, class, side, class]."""
    missed = (own - rows @ rows.T / REPLICATES).reshape(2, -1, k, 2, len(rows) // (2 * k), k)
    return np.asarray(np.einsum("smktml->smktl", missed), np.float64)
