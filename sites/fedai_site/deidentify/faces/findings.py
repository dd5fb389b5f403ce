"""What was found out about a head, as evidence: numbers and names of methods, never anything of the
patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class NoFit(ValueError):
    """This volume can't be laid onto the template with certainty. The text says why, without patient data.

    `head_like`: whether one orientation fits clearly better than all others, as a head's does and a leg's
    doesn't.
    """

    def __init__(self, why: str, head_like: bool = False) -> None:
        super().__init__(why)
        self.head_like = head_like


class Outcome(StrEnum):
    """What became of a series."""

    REMOVED = "removed"  # the face is gone
    NOT_IN_VIEW = "not in view"  # the fit shows that the field of view ends above the face
    TOO_THIN = "too thin"  # too few images for a surface: nothing was done, nothing is claimed
    NO_HEAD = "no head"


@dataclass(frozen=True)
class FaceFindings:
    """Evidence for one series.

    `orientation`: mutual information of the stated orientation and of the best other one. `information`,
    `overlap` (Dice of the head's outlines) and `brain_overlap` say how well the template fits; `scales` how
    it was stretched, `tilt` by how many degrees turned. `moved`: millimetres by which 95% of the face's
    surface lies further back. `seconds` of processor time.
    """

    method: str
    template: str
    outcome: Outcome
    orientation: str = ""
    information: float = 0.0
    overlap: float = 0.0
    brain_overlap: float = 0.0
    scales: tuple[float, ...] = ()
    tilt: float = 0.0
    voxels_changed: int = 0
    brain_voxels_changed: int = 0
    moved: float = 0.0
    seconds: float = 0.0

    @property
    def claims_no_face(self) -> bool:
        """Whether (0028,0302) Recognizable Visual Features may be NO."""
        return self.outcome in (Outcome.REMOVED, Outcome.NOT_IN_VIEW)
