"""What every request to the routes passes first: an id, the key, how many are under way. And how refusals are told:
as an answer, in the metrics, in the log. What a route does is in api.py; reading bodies in body.py.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import uuid

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oddlog.events.printable import printable
from oddlog.settings import ServeSettings
from serving.backend import Backend
from serving.body import drain
from serving.headers import REQUEST_ID
from serving.refusal import Refusal

log = logging.getLogger(__name__)

_HEADER = REQUEST_ID.encode()
_GOOD_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
"""An id that may stand in a log line and in a header as it is."""

_STATE = "oddlog.request_id"


class Door:
    """ASGI middleware of the application in api.py, whose `app.state.backend` it reads."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._under_way = 0
        self._digests: tuple[ServeSettings, list[bytes]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. A mistake of our own is answered with 500, logged with its traceback."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = authorization = b""
        for name, value in scope["headers"]:
            if name == _HEADER:
                given = value
            elif name == b"authorization":
                authorization = value
        request_id = given if _GOOD_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        scope[_STATE] = request_id.decode()
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message.get("headers", ()), (_HEADER, request_id)]
            await send(message)

        self._under_way += 1
        try:
            settings = backend_of(scope).settings
            if (refusal := self._refusal(settings, authorization)) is None:
                await self._app(scope, receive, answer)
            else:
                await drain(receive, settings)
                await refused(scope, refusal)(scope, receive, answer)
        except Exception:
            log.exception("%s %s failed (request %s)", *_named(scope))
            if begun:
                raise
            await refused(scope, _our_mistake(request_id.decode()))(scope, receive, answer)
        finally:
            self._under_way -= 1

    def _refusal(self, settings: ServeSettings, authorization: bytes) -> Refusal | None:
        """Why a request is not let in."""
        if settings.api_key is not None and not self._has_key(settings, authorization):
            return Refusal(
                401,
                "the key is not one of this service's" if authorization else "no key",
                expected="the header `Authorization: Bearer KEY`, with a key of ODDLOG_SERVE__API_KEY of the service",
                mend="set ODDLOG_SCORER__API_KEY; curl -H 'authorization: Bearer KEY' ...",
                headers={"www-authenticate": 'Bearer realm="oddlog"'},
            )
        if self._under_way > settings.max_requests:
            return Refusal(
                429,
                f"{settings.max_requests:,} requests are under way in this worker",
                expected="fewer at once",
                mend="send it again, or raise ODDLOG_SERVE__WORKERS or ODDLOG_SERVE__MAX_REQUESTS of the service",
                headers={"retry-after": "1"},
            )
        return None

    def _has_key(self, settings: ServeSettings, authorization: bytes) -> bool:
        """Takes as long whatever was sent: digests of one length are compared, all of them, each in constant time."""
        if self._digests is None or self._digests[0] is not settings:
            assert settings.api_key is not None
            keys = settings.api_key.get_secret_value().split(",")
            self._digests = settings, [hashlib.sha256(key.encode()).digest() for key in keys]
        scheme, _, key = authorization.partition(b" ")
        given = hashlib.sha256(key.strip()).digest()
        known = [hmac.compare_digest(given, digest) for digest in self._digests[1]]
        return any(known) and scheme.lower() == b"bearer"


def backend_of(scope: Scope) -> Backend:
    """What the application stands on."""
    backend = scope["app"].state.backend
    assert isinstance(backend, Backend)
    return backend


def refused(scope: Scope, refusal: Refusal) -> Response:
    """The answer of a refusal, counted and logged."""
    backend_of(scope).metrics.request_refused(refusal.status)
    method, path, request_id = _named(scope)
    found = printable(" ".join(refusal.found.split()), most=500)
    log.info("%s %s: %d, %s (request %s)", method, path, refusal.status, found, request_id)
    return Response(orjson.dumps(refusal.body()), refusal.status, refusal.headers, "application/json")


def _named(scope: Scope) -> tuple[str, str, str]:
    return scope["method"], printable(scope["path"], most=200), scope.get(_STATE, "without an id")


def _our_mistake(request_id: str) -> Refusal:
    return Refusal(
        500,
        "a mistake of the service, not of the request",
        expected="an answer",
        mend=f"look for request {request_id} in the service's log",
    )
