"""Whether a model may score events that are made under a privacy: its card tells under which it was trained."""

from __future__ import annotations

from oddlog.errors import ArtifactError
from oddlog.events.privacy import PrivacyStamp
from oddlog.scoring.card import Card


def check_privacy(card: Card, stamp: PrivacyStamp | None) -> str | None:
    """What is to be said of a model that was trained under another privacy than `stamp`; None where it was not.

    Query strings count: with them, or without, the same request has other features. Raises ArtifactError where they
    differ. No client's name is in a model, so another key, or none, changes no score: that is a sentence alone."""
    own = card.privacy
    if (own is not None and own.queries) != (stamp is not None and stamp.queries):
        raise ArtifactError(
            f"the model was trained on events with {_queries(own)}, and is asked about events with {_queries(stamp)}",
            expected="the same setting of privacy.queries: the same request has other features without its query",
            mend="oddlog train on events that were made under these settings; or correct privacy.queries",
        )
    if own == stamp or (own is not None and stamp is not None and own.clients == stamp.clients and stamp.key is None):
        return None
    return (
        f"the model was trained on {_clients(own)}, and is asked about {_clients(stamp)}: its scores are right, but "
        "the pages of its training name clients otherwise"
    )


def _queries(stamp: PrivacyStamp | None) -> str:
    return "their query strings" if stamp is None or not stamp.queries else "dropped query strings"


def _clients(stamp: PrivacyStamp | None) -> str:
    if stamp is None or not stamp.clients:
        return "clients as they were logged"
    return f"pseudonyms of key {stamp.key}" if stamp.key else "pseudonyms"
