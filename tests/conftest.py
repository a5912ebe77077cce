"""For all tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# How long an example of Hypothesis takes, to make or to run, says something of the machine, not of the code.
settings.register_profile("headwater", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headwater")


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """A command run within the process sets up the log, with the standard error of that test alone."""
    logger = logging.getLogger("headwater")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before
