"""One at a time: what changes the registry holds a lock of the event store, for MLflow cannot compare and set."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator

from oddlog.connectors.store import Store
from oddlog.errors import OutsideError, StoreError

log = logging.getLogger(__name__)


class Taken(OutsideError):
    """Somebody else holds the lock."""


@contextlib.contextmanager
def locked(store: Store, name: str, *, seconds: float, what: str) -> Iterator[Callable[[], None]]:
    """Hold the lock `name`, which expires after `seconds`; gives a function that prolongs it, or raises where it was
    lost. `what` is at work meanwhile, in words. Raises Taken, naming who holds it, and StoreError."""
    holder = _holder()

    def take() -> None:
        if (other := store.acquire_lock(name, holder, seconds)) is not None:
            raise Taken(
                f"another {what} is at work: {other} holds the lock {name!r}",
                expected=f"one {what} at a time",
                mend=f"wait for it; one that died gives way after {seconds:g} s",
            )

    take()
    try:
        yield take
    finally:
        try:
            store.release_lock(name, holder)
        except StoreError as error:  # what was done under the lock is done, and what failed says so itself
            log.warning("the lock %r ends by itself, after %g s: %s", name, seconds, error.found)


def _holder() -> str:
    """Host, process and, in a workflow of GitHub's, its run: enough to find it. The rest tells two of one process."""
    run = "/".join(filter(None, (os.environ.get("GITHUB_REPOSITORY"), os.environ.get("GITHUB_RUN_ID"))))
    return ":".join(filter(None, (socket.gethostname(), str(os.getpid()), run, uuid.uuid4().hex[:8])))
