"""Settings of every lane."""

import signal

import pytest
from hypothesis import settings

# How long an example takes says something about the machine, not about the code.
settings.register_profile("wgd", deadline=None)
settings.load_profile("wgd")

# What fails in there is told as plainly as in a test.
pytest.register_assert_rewrite("tests.machines")


def pytest_configure():
    """Let what ends the tests from outside end them in order, with everything that they made taken away."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
