"""The detectors by name. Each one is in its own file."""

from __future__ import annotations

from collections.abc import Callable

from oddlog.detectors.autoencoder import Autoencoder
from oddlog.detectors.detector import Detector
from oddlog.detectors.iforest import IForest
from oddlog.detectors.surprise import Surprise
from oddlog.errors import UsageError

_DETECTORS: dict[str, Callable[[], Detector]] = {
    "iforest": IForest,
    "autoencoder": Autoencoder,
    "surprise": Surprise,
}

NAMES: tuple[str, ...] = tuple(_DETECTORS)


def create(name: str) -> Detector:
    """An unfitted detector. Raises UsageError for a name that is none.

    >>> create("surprise").name
    'surprise'
    """
    if name not in _DETECTORS:
        raise UsageError(f"there is no detector {name!r}", expected="one of " + ", ".join(NAMES))
    return _DETECTORS[name]()
