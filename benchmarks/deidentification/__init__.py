"""Attacks de-identification with files full of planted identifiers, ours and other tools' in one run."""
