"""De-identification: dataset in, clean dataset and the actions taken out.

Usable alone; knows no catalogue and no study.
"""

from fedai_site.deidentify.engine import Cleaned, Deidentifier, describe, write
from fedai_site.deidentify.explain import Explained, explain
from fedai_site.deidentify.profile import Option, Profile, load_profile
from fedai_site.deidentify.pseudonyms import Pseudonyms, create_secret, load_secret
from fedai_site.deidentify.reading import parse

__all__ = [
    "Cleaned",
    "Deidentifier",
    "Explained",
    "Option",
    "Profile",
    "Pseudonyms",
    "create_secret",
    "describe",
    "explain",
    "load_profile",
    "load_secret",
    "parse",
    "write",
]
