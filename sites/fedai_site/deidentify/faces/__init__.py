"""Faces in head volumes (CT, MR, PET): found by fitting a mean head, removed, and looked for again.

SimpleITK is imported when the first volume is fitted; the extra "faces" installs it. The fit, what is
removed and how that is checked: fitting.py, template.py, defacing.py.
"""

from fedai_site.deidentify.faces.anatomy import may_show_head
from fedai_site.deidentify.faces.defacing import deface
from fedai_site.deidentify.faces.findings import FaceFindings, Outcome
from fedai_site.deidentify.faces.series import deface_series, shows_head

__all__ = ["FaceFindings", "Outcome", "deface", "deface_series", "may_show_head", "shows_head"]
