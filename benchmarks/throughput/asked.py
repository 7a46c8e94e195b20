"""What the hand-written consumers are told on their command line. Standard library alone: one runs elsewhere."""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """Where to read, where to write, and who scores."""

    servers: str
    topic: str
    group: str
    elastic: str
    """`http://host:port`."""
    prefix: str
    """Of the indices: `<prefix>-events-YYYY.MM.DD`."""
    scorer: str
    fitted: str
    """File with the lines that models are fitted on."""
    state: str
    """Folder for whatever a consumer keeps on disk."""


def asked(program: str | None) -> Asked:
    """Read them."""
    parser = argparse.ArgumentParser(description=program)
    for name in Asked.__dataclass_fields__:
        parser.add_argument(f"--{name}", required=True)
    return Asked(**vars(parser.parse_args()))
