"""Which scorer a URL names: the service over HTTP, or the registry's models in this process."""

from __future__ import annotations

from urllib.parse import urlsplit

from oddlog.connectors.by_url import open_registry
from oddlog.errors import RegistryError, ScorerError, ScorerUnavailable, UsageError
from oddlog.events.privacy import stamp_of
from oddlog.scoring.local import LocalScorer
from oddlog.scoring.scorer import Scorer
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import Settings
from serving.follow import AliasFollower

LOOK_EVERY = 2.0
"""Seconds between two looks at the registry by a scorer in process, however often it is asked for the champion."""


def open_scorer(settings: Settings) -> Scorer:
    """The scorer that `settings.scorer.url` names: `http(s)://host:3000` or `local:`.

    Raises UsageError for another scheme."""
    url = settings.scorer.url
    scheme = urlsplit(url).scheme
    if scheme in {"http", "https"}:
        from serving.client import HttpScorer

        return HttpScorer(settings.scorer)
    if scheme == "local":
        return local_scorer(settings)
    raise UsageError(
        f"scorer URL {url!r} has the scheme {scheme!r}",
        expected="http(s)://host:3000 of a `bentoml serve`, or local:",
        mend="set ODDLOG_SCORER__URL, or [scorer] url in oddlog.toml",
    )


def local_scorer(settings: Settings) -> LocalScorer:
    """A scorer in this process that follows the registry of `settings.registry` as the service does."""
    shelf = ModelShelf(settings.registry.model)
    follower = AliasFollower(
        settings.registry,
        shelf,
        registry=lambda: open_registry(settings.registry),
        privacy=stamp_of(settings.privacy),
    )

    def refresh(version: str | None) -> None:
        if version is not None:
            follower.keep(version)
        follower.look(unless_within=LOOK_EVERY)
        if version is not None:
            if version in shelf.versions():
                return
            try:
                follower.fetch(version)
            except RegistryError as error:
                # Away is for now; a registry that answers and does not have it is for good.
                kind = ScorerError if follower.view.reachable else ScorerUnavailable
                raise kind(error.found, expected=error.expected, mend=error.mend) from error
        elif shelf.champion() is None and (problem := _why_none(follower)) is not None:
            raise problem

    return LocalScorer(shelf, refresh)


def _why_none(follower: AliasFollower) -> ScorerUnavailable | None:
    """Why there is no champion although there may be one; None where nothing is promoted."""
    if not follower.view.reachable:
        return ScorerUnavailable(
            f"the registry is away, and no verified model is cached: {follower.view.error}",
            expected="a registry that answers, or a cached champion",
            mend="start the registry; see ODDLOG_REGISTRY__URL",
        )
    for one in follower.view.refused:
        if one.role == "champion":
            return ScorerUnavailable(
                f"version {one.version} is champion and is refused: {one.found}",
                expected=one.expected,
                mend=one.mend,
            )
    return None
