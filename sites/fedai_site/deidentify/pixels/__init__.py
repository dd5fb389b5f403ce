"""Text burned into pixels: found, blanked, looked for again.

`clean_pixels` changes a data set in place or raises Quarantine. torch is imported when pixels are first
looked at.
"""

from fedai_site.deidentify.pixels.cleaning import PixelFindings, clean_pixels
from fedai_site.deidentify.pixels.facts import Gate, PixelFacts

__all__ = ["Gate", "PixelFacts", "PixelFindings", "clean_pixels"]
