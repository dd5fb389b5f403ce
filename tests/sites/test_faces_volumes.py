"""Faces on arrays: what goes, what stays, and what is refused."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
from fedai_site.deidentify.faces import FaceFindings, Outcome, deface
from fedai_site.deidentify.faces.defacing import air
from fedai_site.deidentify.faces.template import load_template
from fedai_site.quarantine import Quarantine, Reason
from head_volumes import (
    BRAIN,
    EYES,
    NOSE,
    ch2,
    ch2_brain,
    cranium,
    flipped,
    index_of,
    mean_head,
    space,
)
from numpy.typing import NDArray
from scipy import ndimage

Defaced = tuple[NDArray[np.bool_], FaceFindings]


@pytest.fixture(scope="module", params=["CT", "MR"])
def head(request: pytest.FixtureRequest) -> tuple[Any, Any, Defaced]:
    volume, affine = mean_head(request.param)
    return volume, affine, deface(volume, affine, request.param)


def test_nose_and_eyes_go_and_the_brain_stays(head: tuple[Any, Any, Defaced]) -> None:
    _, affine, (mask, findings) = head
    assert all(mask[index_of(affine, place)] for place in (NOSE, *EYES))
    assert not mask[index_of(affine, BRAIN)]
    assert findings.brain_voxels_changed == 0
    assert findings.voxels_changed == mask.sum()
    assert findings.moved > 20
    assert findings.outcome is Outcome.REMOVED


def test_no_voxel_of_the_templates_brain_is_touched(head: tuple[Any, Any, Defaced]) -> None:
    _, affine, (mask, _) = head
    template = load_template()
    z, y, x = np.nonzero(mask)
    places = (affine[:3, :3] @ np.stack([x, y, z]) + affine[:3, 3:]) * 1.1 + np.array([[0], [0], [-4.0]])
    assert template.at(template.from_brain, places, 99.0).min() > 2


def test_the_evidence_holds_no_more_than_numbers_and_names_of_methods(
    head: tuple[Any, Any, Defaced],
) -> None:
    findings = head[2][1]
    assert findings.template == load_template().sha256[:12]
    assert findings.overlap > 0.95
    assert findings.claims_no_face


@cache
def small(modality: str) -> Defaced:
    """Of the invented head in voxels of 3 mm, made once."""
    return deface(*mean_head(modality, 3.0), modality)


@cache
def real_ct() -> Defaced:
    """Of the real CT, made once."""
    return deface(*cranium(), "CT")


@pytest.mark.slow
def test_the_same_volume_gives_the_same_mask() -> None:
    volume, affine = mean_head("MR", 3.0)
    first, second = small("MR"), deface(volume, affine, "MR")
    assert np.array_equal(first[0], second[0])
    assert first[1].information == second[1].information


@pytest.mark.parametrize(
    "axes",
    [
        pytest.param((1,), id="front-back"),
        pytest.param((2,), id="up-down", marks=pytest.mark.slow),
        pytest.param((1, 2), id="upside down", marks=pytest.mark.slow),
    ],
)
def test_a_head_that_lies_otherwise_than_stated_is_refused_with_a_picture(axes: tuple[int, ...]) -> None:
    volume, affine = mean_head("MR", 3.0)
    with pytest.raises(Quarantine, match="which way the head lies") as refused:
        deface(volume, flipped(affine, *axes), "MR")
    assert refused.value.reason is Reason.FACE_LEFT
    assert refused.value.picture is not None
    assert refused.value.picture.startswith(b"\x89PNG")


@pytest.mark.slow
def test_mistaken_axes_are_refused() -> None:
    volume, affine = mean_head("CT", 3.0)
    with pytest.raises(Quarantine, match="FACE_LEFT"):
        deface(volume, affine[[1, 0, 2, 3]], "CT")


@pytest.mark.parametrize("spoilt", [np.zeros((4, 4)), np.diag([np.nan, 1, 1, 1])])
def test_a_geometry_that_is_none_is_refused(spoilt: Any) -> None:
    with pytest.raises(Quarantine, match="geometry"):
        deface(np.zeros((8, 8, 8), np.float32), spoilt, "MR")


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_volume_without_content_is_refused(value: float) -> None:
    with pytest.raises(Quarantine, match="no head-sized body"):
        deface(np.full((40, 40, 40), value, np.float32), np.diag([5.0, 5.0, 5.0, 1.0]), "MR")


@pytest.mark.slow
def test_noise_is_no_head() -> None:
    noise = np.random.default_rng(0).normal(100, 30, (60, 60, 60)).astype(np.float32)
    with pytest.raises(Quarantine, match="FACE_LEFT"):
        deface(noise, np.diag([4.0, 4.0, 4.0, 1.0]), "MR")


def test_a_ball_is_no_head() -> None:
    at, affine = space((-110.0, -110.0, -110.0), (110.0, 110.0, 110.0), 4.0)
    ball = np.where((at**2).sum(axis=0) < 90**2, 100.0, 0.0).astype(np.float32)
    with pytest.raises(Quarantine, match="FACE_LEFT"):
        deface(ball, affine, "MR")


def test_the_top_of_a_head_has_no_face_and_nothing_is_changed() -> None:
    volume, affine = mean_head("MR")
    cut = int((18 - affine[2, 3]) / affine[2, 2])
    raised = affine.copy()
    raised[2, 3] += cut * affine[2, 2]
    mask, findings = deface(volume[cut:], raised, "MR")
    assert findings.outcome is Outcome.NOT_IN_VIEW
    assert not mask.any()
    assert findings.claims_no_face


@pytest.mark.slow
def test_a_long_neck_and_shoulders_do_not_draw_the_fit_away() -> None:
    volume, affine = mean_head("CT", 3.0)
    low = affine.copy()
    low[2, 3] -= 80 * 3.0
    below = np.repeat(volume[:1], 80, axis=0)
    mask, findings = deface(np.concatenate([below, volume]), low, "CT")
    alone, _ = small("CT")
    both = mask[80:] & alone
    assert findings.outcome is Outcome.REMOVED
    assert 2 * both.sum() / (mask[80:].sum() + alone.sum()) > 0.95
    assert not mask[:60].any()


def test_without_simple_itk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(Quarantine, match="extra 'faces'"):
        deface(*mean_head("MR", 3.0), "MR")


def test_a_defaced_head_is_left_as_it_is() -> None:
    volume, affine = mean_head("MR", 3.0)
    mask, _ = small("MR")
    again, findings = deface(np.where(mask, air(volume, "MR"), volume), affine, "MR")
    assert findings.outcome is Outcome.REMOVED
    assert (again & ~mask).sum() < 0.02 * mask.sum()


# The real heads: Debian's mricron-data and invesalius-examples

CH2_NOSE, CH2_EYES = (0.0, -85.0, -55.0), ((33.0, -62.0, -38.0), (-36.0, -62.0, -38.0))


def test_the_face_of_ch2_goes_and_none_of_its_brain() -> None:
    volume, affine = ch2()
    mask, findings = deface(volume, affine, "MR")
    assert not (mask & ch2_brain()).any()
    assert all(mask[index_of(affine, place)] for place in (CH2_NOSE, *CH2_EYES))
    assert findings.moved > 20
    assert _skin(volume, mask, affine, (-45, 45), (-68, -26), 20) < -20


def test_the_face_of_the_cranium_goes() -> None:
    volume, _ = cranium()
    mask, findings = real_ct()
    cleared = np.where(mask, -1000, volume)
    assert findings.moved > 15
    nose = np.unravel_index(np.argmax(_frontmost(volume[:40, :, 100:156] > -200)), (40, 56))
    before = _frontmost(volume[:40, :, 100:156] > -200)[nose]
    after = _frontmost(cleared[:40, :, 100:156] > -200)[nose]
    assert (before - after) * 0.957 > 30, "the tip of the nose"


def test_the_brain_of_the_cranium_stays() -> None:
    volume, _ = cranium()
    mask, _ = real_ct()
    soft = (volume > 0) & (volume < 80)
    core = ndimage.binary_erosion(soft, iterations=6)
    labels, _ = ndimage.label(core)
    brain = labels == np.bincount(labels[labels > 0]).argmax()
    assert brain.sum() * 0.957**2 * 1.5 > 400_000, "mm3"
    assert not (mask & ndimage.binary_dilation(brain, iterations=3)).any()


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(1,), (1, 2)], ids=["front-back", "upside down"])
@pytest.mark.parametrize("real", [ch2, cranium], ids=["MR", "CT"])
def test_a_real_head_that_lies_otherwise_is_refused(real: Any, axes: tuple[int, ...]) -> None:
    volume, affine = real()
    with pytest.raises(Quarantine, match="which way the head lies"):
        deface(volume, flipped(affine, *axes), "CT" if real is cranium else "MR")


@pytest.mark.slow
def test_another_contrast_makes_no_difference() -> None:
    volume, affine = ch2()
    dark = np.interp(
        volume / 120, [0, 0.05, 0.15, 0.35, 0.55, 0.75, 1, 3], [0, 25, 250, 500, 300, 225, 200, 250]
    )
    mask, findings = deface(dark.astype(np.float32), affine, "MR")
    assert findings.outcome is Outcome.REMOVED
    assert not (mask & ch2_brain()).any()
    assert all(mask[index_of(affine, place)] for place in (CH2_NOSE, *CH2_EYES))


def _frontmost(tissue: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The highest row with tissue, for rows that run from back to front, (slices, columns)."""
    rows = np.arange(tissue.shape[1])[None, :, None]
    return np.asarray(np.where(tissue, rows, 0).max(axis=1))


def _skin(
    volume: Any, mask: Any, affine: Any, across: tuple[int, int], up: tuple[int, int], level: float
) -> float:
    """How far (mm, negative: back) the skin of ch2's face lies behind where it lay: the median of all lines
    of sight.
    """
    z0, _, x0 = index_of(affine, (across[0], 0, up[0]))
    z1, _, x1 = index_of(affine, (across[1], 0, up[1]))
    part = np.s_[min(z0, z1) : max(z0, z1), :, min(x0, x1) : max(x0, x1)]
    tissue = volume[part] > level
    before, after = _frontmost(tissue), _frontmost(tissue & ~mask[part])
    return float(np.median(after - before))
