"""The detectors by name. Each one is in its own file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from oddlog.detectors.autoencoder import Autoencoder
from oddlog.detectors.detector import Detector
from oddlog.detectors.iforest import IForest
from oddlog.detectors.surprise import Surprise
from oddlog.errors import UsageError

_DETECTORS: dict[str, Callable[..., Detector]] = {
    "iforest": IForest,
    "autoencoder": Autoencoder,
    "surprise": Surprise,
}

NAMES: tuple[str, ...] = tuple(_DETECTORS)


def create(name: str, parameters: Mapping[str, int | float] | None = None) -> Detector:
    """An unfitted detector; `parameters` beat its defaults. Raises UsageError for a name or parameter that is none.

    >>> create("surprise").name
    'surprise'
    >>> create("iforest", {"trees": 50}).name
    'iforest'
    """
    if name not in _DETECTORS:
        raise UsageError(f"there is no detector {name!r}", expected="one of " + ", ".join(NAMES))
    known = inspect.signature(_DETECTORS[name]).parameters
    if unknown := sorted(set(parameters or {}) - set(known)):
        raise UsageError(
            f"{name} has no parameter {', '.join(unknown)}", expected=", ".join(known) or "none: it has nothing to set"
        )
    return _DETECTORS[name](**parameters or {})
