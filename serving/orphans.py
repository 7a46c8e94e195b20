"""A worker of the service ends with the process that started it: one that outlived its arbiter would hold the port
against the next, and serve on with nobody to stop it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, by whatever signal; at once where it has died already.

    Linux alone has it; elsewhere nothing happens. A worker holds nothing that would have to be put in order first."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # A worker takes seconds to get here. One whose parent died meanwhile has init for a parent, which in a container
    # may be the arbiter itself.
    if os.getppid() == 1 and b"bentoml" not in Path("/proc/1/cmdline").read_bytes():
        os.kill(os.getpid(), signal.SIGKILL)
