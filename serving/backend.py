"""What the HTTP routes stand on: the models that are held, who follows the registry, and what is told about both."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread

from oddlog.connectors.registry import CHALLENGER, CHAMPION, PREVIOUS
from oddlog.errors import ScorerError, ScorerUnavailable
from oddlog.scoring.shelf import Held, ModelShelf
from oddlog.settings import ServeSettings
from serving.follow import AliasFollower, View
from serving.metrics import ServiceMetrics
from serving.refusal import Refusal

LOOK_AGAIN_SECONDS = 0.2
"""A request that names an unknown version makes this worker look at the registry, at most this often."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The parts of a running service."""

    settings: ServeSettings
    shelf: ModelShelf
    follower: AliasFollower
    metrics: ServiceMetrics
    _turn: anyio.Lock = field(default_factory=anyio.Lock, repr=False)
    """Of who looks at the registry for what is missing: one does, and the others that wait have its answer."""

    async def choose(self, version: str | None) -> tuple[Held, str]:
        """The version asked for (None: the champion), and who is champion now. Raises Refusal (404, 503).

        Another worker may have seen a promotion before this one has: what is missing here is looked for first.
        """
        try:
            return self.shelf.choose(version)
        except ScorerError:
            await self.look_again()
        try:
            return self.shelf.choose(version)
        except ScorerUnavailable:
            raise self.not_ready() from None
        except ScorerError:
            held = ", ".join(self.shelf.versions())
            raise Refusal(
                404,
                f"no version {str(version)[:80]!r} of model {self.shelf.name!r} is held here",
                expected=f"one of {held}: champion, previous and challenger are held",
                mend="name no version to have the champion; GET /v1/models lists what is held",
            ) from None

    async def look_again(self) -> None:
        """Have looked at the registry since this call, for something that is missing here: the last look may have
        begun before another worker saw what this one is asked for. Not at one that is away: it may answer slowly."""
        called = time.monotonic()
        async with self._turn:
            if not self.follower.view.reachable or self.follower.begun >= called:
                return
            await anyio.sleep(max(0.0, self.follower.begun + LOOK_AGAIN_SECONDS - time.monotonic()))
            await anyio.to_thread.run_sync(self.follower.look)

    def not_ready(self) -> Refusal:
        """Why there is no champion to score with: 503."""
        view = self.follower.view
        refused = next((one for one in view.refused if one.role == CHAMPION), None)
        headers = {"retry-after": str(max(1, round(self.settings.poll_seconds)))}
        expected = "a promoted model"
        if refused is not None:
            found = f"version {refused.version} is champion and is refused: {refused.found}"
            return Refusal(
                503,
                found,
                expected=refused.expected or expected,
                mend=refused.mend or "oddlog train && oddlog promote",
                headers=headers,
            )
        if view.reachable is None:
            found, mend = "the registry has not answered yet", "wait for /readyz"
        elif not view.reachable:
            found = f"the registry is away, and no verified model is cached: {(view.error or '').splitlines()[0]}"
            mend = "start the registry; see ODDLOG_REGISTRY__URL"
        else:
            found, mend = (
                f"no version of model {self.shelf.name!r} is champion",
                "oddlog train && oddlog promote",
            )
        return Refusal(503, found, expected=expected, mend=mend, headers=headers)

    def models(self) -> dict[str, Any]:
        """Which models there are here, for people and for the client."""
        served, view = self._stand()
        champion = served.version if served else None
        roles = view.roles or {}
        held = {version: self._held(version) for version in self.shelf.versions()}
        return {
            "name": self.shelf.name,
            "champion": held.get(champion) if champion else None,
            "previous": held.get(roles.get(PREVIOUS, "")),
            "challenger": held.get(roles.get(CHALLENGER, "")),
            "held": [version for version, summary in held.items() if summary is not None],
            "refused": [
                {
                    "version": one.version,
                    "role": one.role,
                    "found": one.found,
                    "expected": one.expected,
                    "mend": one.mend,
                    "at": one.at,
                }
                for one in view.refused
            ],
            "registry": {
                "reachable": view.reachable,
                "error": view.error,
                "looked_at": view.looked_at,
                "roles": roles,
                "serving_from_cache": view.from_cache,
            },
            "detail": self._detail(served, view),
        }

    def detail(self) -> str:
        """What is served and why that, or what is missing, in a sentence."""
        return self._detail(*self._stand())

    def _stand(self) -> tuple[Held | None, View]:
        """The champion here and what the registry told, in that order: the follower writes them the other way round,
        so that a champion found is never one that the view has not named yet."""
        served = self.shelf.champion()
        return served, self.follower.view

    def _detail(self, served: Held | None, view: View) -> str:
        if served is None:
            return self.not_ready().found
        champion = served.version
        if view.from_cache:
            return f"version {champion} comes from the cache; the registry has not confirmed it"
        if not view.reachable:
            return f"version {champion} goes on; the registry is away"
        wanted = (view.roles or {}).get(CHAMPION)
        if wanted != champion:
            return f"version {champion} goes on; the registry names {wanted or 'no champion'}"
        return f"version {champion} is champion"

    def _held(self, version: str) -> dict[str, Any] | None:
        try:
            held = self.shelf.get(version)
        except ScorerError:  # retired between the list and here
            return None
        card = held.model.card
        return {
            "version": version,
            "algorithm": card.algorithm,
            "threshold": held.threshold.model_dump(),
            "baseline_digest": card.baseline_digest,
            "feature_digest": card.feature_digest,
            "model_digest": card.model_digest,
            "fitted_on": card.dataset.model_dump(include={"since", "fit_until", "until", "events", "clients"}),
            "oddlog_version": card.oddlog_version,
            "created_at": card.created_at,
        }
