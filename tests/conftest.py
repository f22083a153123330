"""For every test: a slow machine is no reason to fail, and Ctrl-C reaches what is started, wherever pytest runs."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# A shell lets its background jobs ignore it, and so does all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
