"""The HTTP headers that the service and its client agree on, beside the media types of wire.py."""

from __future__ import annotations

REQUEST_ID = "x-request-id"
"""The id of a request: the client's own where it sends one, and in every answer and log line about it."""


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key.

    >>> bearer("k")
    {'authorization': 'Bearer k'}
    """
    return {"authorization": f"Bearer {key}"}
