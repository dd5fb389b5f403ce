"""Measurements of the whole thing with real processes; each folder has a README with its last figures."""
