"""Who is challenger: the version that scores a sample of the traffic beside the champion, or nobody. Promotion, which
makes a champion, is in `promote.py`; the challenger's lane in the consumer, in serving/shadow.py.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from oddlog.connectors.by_url import open_registry
from oddlog.connectors.registry import CHALLENGER, CHAMPION, Registry
from oddlog.errors import UsageError
from oddlog.scoring.model import Model
from oddlog.settings import Settings


@dataclass(frozen=True, slots=True)
class Challenge:
    """Who is challenger now, and who was before; None: nobody."""

    challenger: str | None
    before: str | None


def set_challenger(settings: Settings, version: str | None, *, registry: Registry | None = None) -> Challenge:
    """Give a version the alias `challenger`, once its artifact has passed the check that the service makes; None takes
    the alias away. Services and consumers follow within seconds.

    Raises UsageError for the champion, ArtifactError for a version that cannot be served, RegistryError (NotRegistered
    for an unknown version): nothing is changed then."""
    registry = registry or open_registry(settings.registry)
    before = registry.by_alias(CHALLENGER)
    if version is None:
        registry.delete_alias(CHALLENGER)
    else:
        wanted = registry.version(version)
        champion = registry.by_alias(CHAMPION)
        if champion is not None and champion.version == wanted.version:
            raise UsageError(
                f"version {version} is the champion",
                expected="another version, to be compared with it",
                mend="oddlog models lists them; oddlog models challenger --none to have none",
            )
        with tempfile.TemporaryDirectory(prefix="oddlog-challenger-") as folder:
            Model.load(registry.download(wanted.version, Path(folder)))
        registry.set_alias(CHALLENGER, wanted.version)
    return Challenge(version, before.version if before else None)
