"""The Modality (0008,0060) that an image may have: the defined terms of DICOM PS3.3 C.7.3.1.1.1."""

from __future__ import annotations

import difflib

TERMS = frozenset({
    "ANN", "AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CFM", "CR", "CT", "CTPROTOCOL", "DG", "DMS", "DOC",
    "DX", "ECG", "EEG", "EMG", "EOG", "EPS", "ES", "FID", "GM", "HC", "HD", "IO", "IOL", "IVOCT",
    "IVUS", "KER", "KO", "LEN", "LS", "M3D", "MG", "MR", "NM", "OAM", "OCT", "OP", "OPM", "OPT",
    "OPTBSV", "OPTENF", "OPV", "OSS", "OT", "PA", "PLAN", "POS", "PR", "PT", "PX", "REG", "RESP", "RF",
    "RG", "RTDOSE", "RTIMAGE", "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV",
    "SEG", "SM", "SMR", "SR", "SRF", "STAIN", "TEXTUREMAP", "TG", "US", "VA", "XA", "XAPROTOCOL", "XC",
})  # fmt: skip
RETIRED = frozenset({
    "AS", "CD", "CF", "CP", "CS", "DD", "DF", "DM", "DS", "EC", "FA", "FS", "LP", "MA", "MS", "OPR",
    "ST", "VF",
})  # fmt: skip
"""Of old archives, whose images still have them."""
USUAL = ("CR", "CT", "DX", "MG", "MR", "NM", "PT", "US", "XA")


def check_modality(text: str) -> str:
    """The same text. Raises ValueError, with the terms near it, where it is no term of the standard."""
    if text in TERMS or text in RETIRED:
        return text
    near = difflib.get_close_matches(text.upper(), sorted(TERMS), n=5, cutoff=0.5)
    said = f"near it: {', '.join(near)}" if near else f"such as {', '.join(USUAL)}"
    raise ValueError(f"no DICOM modality is called {text} (PS3.3 C.7.3.1.1.1); {said}")
