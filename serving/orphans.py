"""A worker of the service ends with the process that started it: one that outlived its arbiter would hold the port
against the next, and serve on with nobody to stop it.
"""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> bool:
    """Have the kernel kill this process when its parent dies, by whatever signal; whether that can be had here.

    Linux alone has it. The worker holds nothing that would have to be put in order first."""
    if sys.platform != "linux":
        return False
    return int(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)) == 0
