"""The models that a process holds, by version, and which of them is champion, which challenger. Fetching them is
not here.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from oddlog.errors import ScorerError, ScorerUnavailable
from oddlog.scoring.card import Threshold
from oddlog.scoring.model import Model


@dataclass(frozen=True, slots=True)
class Held:
    """A model version that is loaded, with the threshold in force for it."""

    version: str
    model: Model
    threshold: Threshold


class ModelShelf:
    """Models by version. Every call is atomic; what `get` returned stays whole whatever happens after.

    Hold a version first (loaded, checked, warm), then make it champion: a request never meets a half swap.
    """

    def __init__(self, name: str) -> None:
        """`name` is the registered model's."""
        self.name = name
        self._held: dict[str, Held] = {}
        self._champion: str | None = None
        self._challenger: str | None = None
        self._lock = threading.Lock()

    def hold(self, version: str, model: Model, threshold: Threshold | None = None) -> Held:
        """Keep a version, or replace its threshold; None takes the one that the model was made with."""
        held = Held(version, model, threshold or model.card.threshold)
        with self._lock:
            self._held[version] = held
        return held

    def get(self, version: str) -> Held:
        """The version. Raises ScorerError, naming the versions that are held."""
        with self._lock:
            held = self._held.get(version)
            if held is None:
                raise self._unknown(version)
            return held

    def champion(self) -> Held | None:
        """The champion; None while there is none."""
        with self._lock:
            return None if self._champion is None else self._held[self._champion]

    def set_champion(self, version: str | None) -> None:
        """Make a held version champion, or no version. Raises ScorerError where it is not held."""
        with self._lock:
            if version is not None and version not in self._held:
                raise self._unknown(version)
            self._champion = version

    def challenger(self) -> str | None:
        """The challenger's version; None while there is none."""
        with self._lock:
            return self._challenger

    def set_challenger(self, version: str | None) -> None:
        """Make a held version challenger, or no version. Raises ScorerError where it is not held."""
        with self._lock:
            if version is not None and version not in self._held:
                raise self._unknown(version)
            self._challenger = version

    def drop(self, version: str) -> None:
        """Let a version go; harmless when it is not held. Raises ScorerError for the champion."""
        with self._lock:
            if version == self._champion:
                raise ScorerError(f"version {version} is champion", expected="another champion before it is dropped")
            self._held.pop(version, None)
            if version == self._challenger:
                self._challenger = None

    def versions(self) -> list[str]:
        """The versions held, in the order they came."""
        with self._lock:
            return list(self._held)

    def choose(self, version: str | None) -> tuple[Held, str]:
        """The version that was asked for (None: the champion) and the champion's version, of one moment.

        Raises ScorerUnavailable while there is no champion, ScorerError for a version that is not held."""
        with self._lock:
            if self._champion is None:
                raise ScorerUnavailable(
                    "no model is champion", expected="a promoted model", mend="oddlog train && oddlog promote"
                )
            wanted = self._champion if version is None else version
            if wanted not in self._held:
                raise self._unknown(wanted)
            return self._held[wanted], self._champion

    def _unknown(self, version: str) -> ScorerError:
        held = ", ".join(self._held) or "none"
        return ScorerError(f"model {self.name} has no version {version!r} here", expected=f"one of those held: {held}")
