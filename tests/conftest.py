"""For all tests: how long an example of Hypothesis takes says something of the machine, not of the code."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("headwater", deadline=None)
settings.load_profile("headwater")
