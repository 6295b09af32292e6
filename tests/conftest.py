"""Settings of every lane."""

import signal

from hypothesis import settings

# How long an example takes says something about the machine, not about the code.
settings.register_profile("wgd", deadline=None)
settings.load_profile("wgd")


def pytest_configure():
    """Let what ends the tests from outside end them in order, with everything that they made taken away."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
