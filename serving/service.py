"""The BentoML service: `bentoml serve`, with nothing else typed at the root, serves the champion.

Wiring alone: routes are in api.py, following the registry in follow.py, what is counted in metrics.py.
"""

from __future__ import annotations

import contextlib
import logging
import os

import anyio.to_thread
import bentoml
from bentoml.exceptions import BentoMLConfigException
from starlette.exceptions import HTTPException

from oddlog.connectors.by_url import open_registry
from oddlog.errors import UsageError
from oddlog.events.privacy import PrivacyStamp, stamp_of
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import Settings, load
from serving.api import make_app
from serving.backend import Backend
from serving.follow import AliasFollower, FollowerThread
from serving.metrics import service_metrics
from serving.orphans import end_with_parent

# BentoML reports every start to its makers unless told not to. setdefault: a user's own choice stands.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
with contextlib.suppress(ImportError, AttributeError):
    # Its command line asked, and remembered the answer, before it imported this module.
    from bentoml._internal.utils.analytics import usage_stats

    usage_stats.do_not_track.cache_clear()


def _settings() -> tuple[Settings, PrivacyStamp | None]:
    try:
        settings = load()
        return settings, stamp_of(settings.privacy)
    except UsageError as error:
        raise BentoMLConfigException(str(error)) from None


SETTINGS, PRIVACY = _settings()

app = make_app(keyed=SETTINGS.serve.api_key is not None)


@bentoml.asgi_app(app)
@bentoml.service(name="oddlog", workers=SETTINGS.serve.workers)
class OddlogScorer:
    """Scores log events with the champion of the registry, and follows it.

    `/v1/score` takes feature matrices (Arrow IPC or JSON), `/v1/score/lines` raw log lines, `/v1/explain` says why,
    `/v1/models` what is served; `/readyz` answers 200 once a model is warm, `/livez` always.
    """

    def __init__(self) -> None:
        logging.getLogger("serving").setLevel(logging.INFO)
        if bentoml.server_context.worker_index is not None:  # a worker of `bentoml serve`, and no import in a test
            end_with_parent()
        metrics = service_metrics()
        shelf = ModelShelf(SETTINGS.registry.model)
        follower = AliasFollower(
            SETTINGS.registry,
            shelf,
            registry=lambda: open_registry(SETTINGS.registry),
            observer=metrics,
            privacy=PRIVACY,
        )
        self.backend = Backend(SETTINGS.serve, shelf, follower, metrics)
        app.state.backend = self.backend
        self._thread = FollowerThread(follower, SETTINGS.serve.poll_seconds)
        self._thread.start()

    @bentoml.on_startup  # type: ignore[untyped-decorator]  # BentoML's own types are not followed
    async def settle(self) -> None:
        """Take requests only when it is known what to serve: a worker without a model would fail what another,
        which is ready, would have answered. Without any model, too, requests are answered after this."""
        await anyio.to_thread.run_sync(self._thread.wait_until_settled)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]  # BentoML's own types are not followed
    def stop(self) -> None:
        """End the thread that follows the registry."""
        self._thread.stop()

    async def __is_ready__(self) -> bool:
        """Whether a model is warm; BentoML's /readyz asks. Why, or why not, is its answer's text."""
        if self.backend.shelf.champion() is None:
            refusal = self.backend.not_ready()
            raise HTTPException(503, f"{refusal.found}; to mend: {refusal.mend}\n", refusal.headers)
        # Returning True would make the answer an empty line: that a model comes from the cache would be told nowhere.
        raise HTTPException(200, f"{self.backend.detail()}\n")
