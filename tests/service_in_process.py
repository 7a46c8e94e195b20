"""The service's HTTP application in this process, without a server: requests to it, and what it stands on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import httpx
from fastapi import FastAPI

from oddlog.connectors.by_url import open_registry
from oddlog.scoring.shelf import ModelShelf
from oddlog.settings import RegistrySettings, ServeSettings
from serving.api import make_app
from serving.backend import Backend
from serving.follow import AliasFollower
from serving.metrics import service_metrics


def empty_backend(folder: Path, registry: Any = None, **serve: Any) -> Backend:
    """Nothing is held; the registry, in `folder` unless one is given, knows no version. `serve`: settings of the
    service."""
    settings = RegistrySettings(url=f"sqlite:///{folder}/none.db", cache_dir=folder / "cache")
    shelf = ModelShelf(settings.model)
    follower = AliasFollower(settings, shelf, registry=lambda: registry or open_registry(settings))
    return Backend(
        ServeSettings(**{"max_rows": 2_000, "max_bytes": 400_000, **serve}), shelf, follower, service_metrics()
    )


class Client:
    """Requests to the application, one at a time."""

    def __init__(self, backend: Backend) -> None:
        self.app: FastAPI = make_app()
        self.app.state.backend = backend

    def __call__(self, method: str, path: str, **how: Any) -> httpx.Response:
        """The answer."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                return await client.request(method, path, **how)

        return anyio.run(ask)

    def post(self, path: str, content: Any, media: str | None, **how: Any) -> httpx.Response:
        """The answer to a body."""
        headers = {**({} if media is None else {"content-type": media}), **how.pop("headers", {})}
        return self("POST", path, content=content, headers=headers, **how)
