"""pydicom's warnings and log lines quote the values they complain about, so here they go nowhere."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import config


@contextmanager
def silenced() -> Iterator[None]:
    """Within it pydicom neither warns, logs nor checks values against their representation (the rules do
    that).
    """
    logger = logging.getLogger("pydicom")
    before = logger.disabled, config.settings.reading_validation_mode, config.settings.writing_validation_mode
    logger.disabled = True
    config.settings.reading_validation_mode = config.IGNORE
    config.settings.writing_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled, config.settings.reading_validation_mode, config.settings.writing_validation_mode = (
            before
        )
