"""Settings of every lane."""

from hypothesis import settings

# How long an example takes says something about the machine, not about the code.
settings.register_profile("wgd", deadline=None)
settings.load_profile("wgd")
