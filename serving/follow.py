"""Following the registry: versions with a role are loaded aside, checked, warmed and put on the shelf.

`look` is one look at the registry; `FollowerThread` takes one every few seconds. Scoring is not here.
"""

from __future__ import annotations

import datetime as dt
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from oddlog.connectors.registry import CHALLENGER, CHAMPION, PREVIOUS, ModelVersion, Registry
from oddlog.errors import ArtifactError, OddlogError, RegistryError
from oddlog.events.privacy import PrivacyStamp
from oddlog.scoring.model import Model
from oddlog.scoring.privacy import check_privacy
from oddlog.scoring.shelf import Held, ModelShelf
from oddlog.settings import RegistrySettings
from serving.artifact_cache import ArtifactCache, key_of

log = logging.getLogger(__name__)

ROLES = (CHAMPION, PREVIOUS, CHALLENGER)

RETIRE_SECONDS = 600.0
"""A version that lost its last role is held for this long: whoever still computes under its baseline is served."""

RETRY_SECONDS = 300.0
"""Longest pause between two attempts to fetch an artifact that the registry cannot hand out."""


@dataclass(frozen=True, slots=True)
class RefusedVersion:
    """A version that has a role and is not served, and why."""

    version: str
    role: str
    found: str
    expected: str | None
    mend: str | None
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class View:
    """What the last look at the registry told. Replaced as a whole, never changed."""

    reachable: bool | None = None
    """None: not asked yet."""
    error: str | None = None
    looked_at: dt.datetime | None = None
    roles: dict[str, str] | None = None
    """Version by role, as the registry has them (or the cache, while `from_cache`)."""
    from_cache: bool = False
    """The champion comes from the cache because the registry was away at start."""
    refused: tuple[RefusedVersion, ...] = ()
    """Versions that had a role in that look and are not served."""


class Observer:
    """Told about what happens; the service counts it as metrics. Every method may be overridden."""

    def swapped(self, version: str, before: str | None) -> None:
        """Another version is champion."""

    def refused(self, version: str) -> None:
        """A version failed its check."""

    def looked(self, view: View) -> None:
        """A look at the registry is over."""

    def stands(self, champion: Held | None, refused: int) -> None:
        """What is served after a look, or by the cache; how many versions have a role and are refused."""


class AliasFollower:
    """Keeps champion, previous and challenger of a registry on a shelf. Safe to call from several threads.

    A champion is only ever replaced by another one that passed its check: neither a registry that is away, nor
    one that has lost its alias, nor a broken artifact takes the model from a running service.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        shelf: ModelShelf,
        registry: Callable[[], Registry],
        observer: Observer | None = None,
        privacy: PrivacyStamp | None = None,
    ) -> None:
        """`registry` opens it; called in `look`, so that a slow one delays nobody. `privacy`: under which the events
        are made that are scored; a model of events that differ in features for it is refused."""
        self.view = View()
        self.begun = float("-inf")
        """When the last look that is over began, `time.monotonic()`: what became so later, it may have missed."""
        self._shelf = shelf
        self._open = registry
        self._registry: Registry | None = None
        self._cache = ArtifactCache(settings)
        self._observer = observer or Observer()
        self._privacy = privacy
        self._looking = threading.Lock()
        self._changing = threading.Lock()
        self._settled = False
        self._loaded: dict[str, str] = {}  # version -> key of what is on the shelf
        self._named_at: dict[str, float] = {}
        self._failed: dict[str, _Failure] = {}  # by key
        self._remembered: dict[str, ModelVersion] = {}
        self._last_look = float("-inf")
        self._reported: str | None = None

    def look(self, unless_within: float = 0.0) -> None:
        """Ask the registry who has which role, and bring the shelf up to date. Raises nothing.

        `unless_within`: do nothing where the last look was that many seconds ago or less."""
        with self._looking:
            if time.monotonic() - self._last_look < unless_within:
                return
            begun = time.monotonic()
            try:
                roles = self._ask()
            except RegistryError as error:
                self._away(error)
            except Exception as error:  # a follower that died would leave the service with an old model for ever
                log.exception("looking at the registry failed")
                self._away(RegistryError(f"{type(error).__name__}: {error}"))
            else:
                self._follow(roles)
            self.begun, self._last_look = begun, time.monotonic()
            self._observer.looked(self.view)
            self._observer.stands(self._shelf.champion(), len(self._failed))

    def fetch(self, version: str) -> None:
        """Put any registered version on the shelf, role or not. Raises RegistryError, ArtifactError."""
        with self._looking:
            self._hold(self._opened().version(version))
            self._named_at[version] = time.monotonic()

    def keep(self, version: str) -> None:
        """A version is in use: it is not let go for RETIRE_SECONDS more, role or not."""
        self._named_at[version] = time.monotonic()

    def use_cache(self, why: str) -> None:
        """Serve what was verified before, unless the registry has named a champion meanwhile. Raises nothing."""
        note = self._cache.remembered()
        if note is None or CHAMPION not in note.roles:
            return
        models: dict[str, Model] = {}
        for role, cached in note.roles.items():
            if cached.version in models:
                continue
            try:
                models[cached.version] = self._ready(cached.version, self._cache.load_cached(cached))
            except ArtifactError as error:
                log.warning("cached %s (version %s) is not usable: %s", role, cached.version, error.found)
        champion = note.roles[CHAMPION].version
        with self._changing:
            if self._settled or champion not in models or self._shelf.champion() is not None:
                return
            for cached in note.roles.values():
                if cached.version in models:
                    self._shelf.hold(cached.version, models[cached.version], cached.threshold)
                    self._loaded[cached.version] = cached.key
                    self._named_at[cached.version] = time.monotonic()
            self._shelf.set_champion(champion)
            challenger = note.roles.get(CHALLENGER)
            self._shelf.set_challenger(challenger.version if challenger and challenger.version in models else None)
            self.view = replace(
                self.view,
                roles={role: cached.version for role, cached in note.roles.items()},
                from_cache=True,
            )
        log.warning("%s: serving version %s, verified before, from the cache", why, champion)
        self._observer.swapped(champion, None)
        self._observer.stands(self._shelf.champion(), len(self._failed))

    def _opened(self) -> Registry:
        if self._registry is None:
            self._registry = self._open()
        return self._registry

    def _ask(self) -> dict[str, ModelVersion]:
        registry = self._opened()
        found = {role: registry.by_alias(role) for role in ROLES}
        return {role: version for role, version in found.items() if version is not None}

    def _away(self, error: OddlogError) -> None:
        if self._reported != error.found:
            log.warning("the registry is away: %s", error.found)
            self._reported = error.found
        self.view = replace(self.view, reachable=False, error=str(error), looked_at=_now())
        if self._shelf.champion() is None:
            self.use_cache("the registry is away")

    def _follow(self, roles: dict[str, ModelVersion]) -> None:
        if self._reported is not None:
            log.info("the registry answers again")
            self._reported = None
        keys = {key_of(found) for found in roles.values()}
        self._failed = {key: failure for key, failure in self._failed.items() if key in keys}
        for role, found in roles.items():
            self._try(role, found)
        usable = {role: found for role, found in roles.items() if self._loaded.get(found.version) == key_of(found)}
        if CHAMPION not in roles and self._shelf.champion() is None:
            self.use_cache("the registry names no champion")
        with self._changing:
            self._settled = self._settled or CHAMPION in roles
            # Before the swap: who reads the shelf and then the view never finds a champion that the view has not named.
            self.view = View(
                reachable=True,
                looked_at=_now(),
                roles={role: found.version for role, found in roles.items()},
                from_cache=self.view.from_cache and CHAMPION not in usable,
                refused=tuple(failure.what for failure in self._failed.values()),
            )
        if CHAMPION in usable:
            self._make_champion(usable[CHAMPION])
        self._shelf.set_challenger(usable[CHALLENGER].version if CHALLENGER in usable else None)
        self._retire({found.version for found in roles.values()})
        if CHAMPION in usable and usable != self._remembered:
            self._cache.remember(usable)
            self._remembered = usable

    def _try(self, role: str, found: ModelVersion) -> None:
        """Hold a version; one that fails is noted, and left alone until it can have changed."""
        key = key_of(found)
        failure = self._failed.get(key)
        if failure is not None and time.monotonic() < failure.again_at:
            return
        try:
            self._hold(found)
        except OddlogError as error:
            self._note_failure(role, found, error)
        except Exception as error:  # an artifact of a stranger may fail in any way; the others are served still
            log.exception("loading version %s failed", found.version)
            self._note_failure(role, found, ArtifactError(f"{type(error).__name__}: {error}"))
        else:
            self._failed.pop(key, None)

    def _note_failure(self, role: str, found: ModelVersion, error: OddlogError) -> None:
        key = key_of(found)
        before = self._failed.get(key)
        attempts = before.attempts + 1 if before else 1
        # What the artifact is does not change; a registry that could not hand it out may be mended.
        pause = float("inf") if isinstance(error, ArtifactError) else min(RETRY_SECONDS, 5.0 * 2**attempts)
        what = RefusedVersion(found.version, role, error.found, error.expected, error.mend, _now())
        self._failed[key] = _Failure(what, attempts, time.monotonic() + pause)
        if before is None or before.what.found != error.found:
            log.error("version %s (%s) is refused, the model in place goes on: %s", found.version, role, error.found)
            self._observer.refused(found.version)

    def _hold(self, found: ModelVersion) -> None:
        """Put a version on the shelf: loaded aside, checked, warm. Raises ArtifactError, RegistryError."""
        key = key_of(found)
        if self._loaded.get(found.version) == key:
            held = self._shelf.get(found.version)
            threshold = found.threshold or held.model.card.threshold  # a tag that was deleted: the one it was made with
            if threshold != held.threshold:
                self._shelf.hold(found.version, held.model, threshold)
                log.info("version %s has threshold %s now", found.version, threshold.version)
            return
        model = self._ready(found.version, self._cache.load(found, self._opened().download))
        self._shelf.hold(found.version, model, found.threshold)
        self._loaded[found.version] = key
        self._named_at[found.version] = time.monotonic()

    def _ready(self, version: str, model: Model) -> Model:
        """The model, fit for the events that are scored here, and warm. Raises ArtifactError."""
        if (caution := check_privacy(model.card, self._privacy)) is not None:
            log.warning("version %s: %s", version, caution)
        return _warm(model)

    def _make_champion(self, champion: ModelVersion) -> None:
        with self._changing:
            before = self._shelf.champion()
            if before is not None and before.version == champion.version:
                return
            self._shelf.set_champion(champion.version)
        log.info("champion is version %s (before: %s)", champion.version, before.version if before else "none")
        self._observer.swapped(champion.version, before.version if before else None)

    def _retire(self, named: set[str]) -> None:
        now = time.monotonic()
        served = self._shelf.champion()
        for version in self._shelf.versions():
            if version in named or (served is not None and version == served.version):
                self._named_at[version] = now
            elif now - self._named_at.get(version, now) > RETIRE_SECONDS:
                self._shelf.drop(version)
                self._loaded.pop(version, None)
                self._named_at.pop(version, None)


class FollowerThread:
    """Looks at the registry every `seconds` (+-20 %) until stopped; falls back to the cache while it is slow."""

    def __init__(self, follower: AliasFollower, seconds: float, *, patience: float = 20.0) -> None:
        """`patience`: seconds that the first look may take before the cache is used."""
        self._follower = follower
        self._seconds = seconds
        self._patience = patience
        self._first = threading.Event()
        self._settled = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="oddlog-follower", daemon=True)
        self._fallback = threading.Thread(target=self._wait_for_first, name="oddlog-fallback", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()
        self._fallback.start()

    def wait_until_settled(self) -> None:
        """Return once the registry has told what to serve, or the cache was tried because it did not in time."""
        self._settled.wait()

    def stop(self) -> None:
        """End after the look that is under way; does not wait for it."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._follower.look()
            self._first.set()
            self._settled.set()
            self._stop.wait(self._seconds * random.uniform(0.8, 1.2))

    def _wait_for_first(self) -> None:
        if not self._first.wait(self._patience):
            try:
                self._follower.use_cache(f"the registry has not answered for {self._patience:g} s")
            finally:
                self._settled.set()


@dataclass(frozen=True, slots=True)
class _Failure:
    what: RefusedVersion
    attempts: int
    again_at: float


def _warm(model: Model) -> Model:
    """The model, after it has scored and explained: the first request is not the one that pays for it."""
    rows = np.asarray(model.card.golden.features, dtype=np.float32).reshape(-1, len(model.card.feature_names))
    model.judge(rows)
    model.contributions(rows[:1])
    return model


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
