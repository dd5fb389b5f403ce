"""Invented hospitals: chest-like radiographs as DICOM, with planted identities of nobody."""
