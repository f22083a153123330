"""A crash: work that is ended by SIGKILL at one of the named places.

In a forked child, and not by an exception that is raised there: that would do the cleaning up that a crash does not.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from cache import trace
from cache.trace import Point


def crash(work: Callable[[], object], count: int) -> None:
    """Do it in a child that is killed when it comes by the `count`th place, or comes to its end before."""
    child = os.fork()
    if child == 0:
        left = count

        def on(_: Point) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            trace.on_point = on
            work()
            status = 0
        finally:
            # Nothing of the parent's is to be ended here.
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
