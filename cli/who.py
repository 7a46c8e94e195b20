"""Who changes something: noted beside the change. It proves no identity."""

from __future__ import annotations

import getpass
import os
import socket
from typing import Annotated

import typer

By = Annotated[str | None, typer.Option(help="Who says so; default: the user of this machine.", show_default=False)]


def who(by: str | None) -> str:
    """`by`, else user@host; a container's user may have a number and no name.

    >>> who("ada")
    'ada'
    """
    if by:
        return by
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
