"""One Elasticsearch, bytes in and bytes out: authentication, TLS, and its errors told by type, not by status.

What is asked of it stands in the other `elastic_*.py`. Bodies and answers stay bytes: polars encodes bulks and
decodes pages of hits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

import elastic_transport
import elasticsearch
import orjson

from oddlog.errors import StoreError, StoreRefused, StoreUnavailable, UsageError
from oddlog.settings import StoreSettings, without_credentials

FOR_NOW = frozenset(
    {
        "circuit_breaking_exception",
        "cluster_block_exception",  # write block, flood stage (disk full), read-only: an operator lifts it
        "es_rejected_execution_exception",
        "illegal_index_shard_state_exception",  # 404, of a shard that is not there yet: its index was made just now
        "index_closed_exception",
        "index_shard_closed_exception",
        "index_shard_not_started_exception",
        "index_shard_recovering_exception",
        "master_not_discovered_exception",
        "no_shard_available_action_exception",
        "node_closed_exception",
        "node_disconnected_exception",
        "node_not_connected_exception",
        "process_cluster_event_timeout_exception",
        "search_context_missing_exception",  # a reader's point in time ended with a shard: it has to begin anew
        "shard_not_found_exception",
        "timeout_exception",
        "unavailable_shards_exception",
        "validation_exception",  # "this cluster currently has maximum shards open": no document's fault
    }
)
"""Error types that pass, or that an operator mends: the same request is sent again."""


_OF_SHARDS = "search_phase_execution_exception"


class ElasticError(StoreError):
    """An answer of Elasticsearch that is neither success, nor for now, nor a refusal by its security."""

    def __init__(self, status: int, type: str, reason: str) -> None:
        super().__init__(f"Elasticsearch answered {status} {type}: {reason}")
        self.status = status
        self.type = type
        self.reason = reason


class ElasticConnection:
    """Requests to the Elasticsearch at `settings.url`; safe for several threads.

    Raises UsageError for a URL that is none of an Elasticsearch."""

    def __init__(self, settings: StoreSettings) -> None:
        parts = urlsplit(settings.url)
        self.url = without_credentials(settings.url)
        if not parts.hostname or parts.username or parts.port is None:
            raise UsageError(
                f"store URL {self.url!r} is not one of an Elasticsearch",
                expected="http(s)://host:port, as in http://127.0.0.1:9200; user and password are settings",
                mend="set ODDLOG_STORE__URL, ODDLOG_STORE__USERNAME and ODDLOG_STORE__PASSWORD",
            )
        if settings.ca_file and parts.scheme != "https":
            raise UsageError(
                f"store.ca_file is set, and {self.url} is not spoken to by TLS",
                expected="an https:// URL with store.ca_file",
                mend="set ODDLOG_STORE__URL to its https:// address, or leave ODDLOG_STORE__CA_FILE away",
            )
        if settings.ca_file and not settings.ca_file.is_file():
            raise UsageError(f"no file {settings.ca_file}, which store.ca_file names", expected="a PEM file")
        if settings.api_key and settings.username:
            raise UsageError("the store has both an API key and a user", expected="one of them")
        more: dict[str, Any] = {}
        if settings.api_key:
            more["api_key"] = settings.api_key.get_secret_value()
        elif settings.username:
            password = settings.password.get_secret_value() if settings.password else ""
            more["basic_auth"] = (settings.username, password)
        if settings.ca_file:
            more["ca_certs"] = str(settings.ca_file)
        self._client = elasticsearch.Elasticsearch(
            settings.url,
            request_timeout=settings.timeout,
            max_retries=0,  # one attempt; callers know what may be sent again, and wait
            serializers={kind.mimetype: kind() for kind in (_Json, _Ndjson, _VendorJson, _VendorNdjson)},
            **more,
        )

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        lines: bool = False,
        seconds: float | None = None,
    ) -> bytes:
        """The answer's body. `lines`: the body is NDJSON. `seconds`: how long it may take; default: store.timeout.

        Raises StoreUnavailable, StoreRefused, or ElasticError with Elasticsearch's own error type."""
        headers = {"accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/x-ndjson" if lines else "application/json"
        client = self._client if seconds is None else self._client.options(request_timeout=seconds)
        try:
            answer = client.perform_request(method, path, params=params, headers=headers, body=body)
        except elasticsearch.UnsupportedProductError as error:
            raise StoreError(
                f"what answers at {self.url} is not Elasticsearch",
                expected="an Elasticsearch 8 or 9",
                mend="set ODDLOG_STORE__URL, or [store] url in oddlog.toml",
            ) from error
        except elasticsearch.ApiError as error:
            raise self._translated(error.meta.status, error.body) from error
        except elastic_transport.TlsError as error:
            raise StoreRefused(
                f"no trusted connection to Elasticsearch at {self.url}: {error.message}",
                expected="a certificate signed by an authority that is trusted here",
                mend="set ODDLOG_STORE__CA_FILE to the PEM file of that authority",
            ) from error
        except elastic_transport.TransportError as error:  # refused, reset, timed out
            raise StoreUnavailable(
                f"Elasticsearch at {self.url} does not answer: {error.message}",
                expected="an Elasticsearch 8 or 9 at ODDLOG_STORE__URL",
            ) from error
        found = answer.body
        return found if isinstance(found, bytes) else b""

    def json(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """The same for small JSON objects."""
        encoded = orjson.dumps(body, option=orjson.OPT_UTC_Z) if body is not None else None
        answer = self.request(method, path, encoded, params=params, seconds=seconds)
        return dict(orjson.loads(answer)) if answer else {}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _translated(self, status: int, body: object) -> StoreError:
        type, reason = error_of(body)
        if type in FOR_NOW or status in {429, 502, 503, 504}:
            return StoreUnavailable(f"Elasticsearch at {self.url} cannot now: {type or status}: {reason}")
        if status in {401, 403}:
            return StoreRefused(
                f"Elasticsearch at {self.url} refuses with {status}: {reason}",
                expected="a user or API key with the privileges that docs/store.md lists",
                mend="set ODDLOG_STORE__USERNAME and ODDLOG_STORE__PASSWORD, or ODDLOG_STORE__API_KEY",
            )
        return ElasticError(status, type, reason)


def error_of(body: object) -> tuple[str, str]:
    """Type and reason of an error answer; a body that is not Elasticsearch's (a proxy's) is its own reason.

    >>> error_of(b'{"error": {"type": "parsing_exception", "reason": "unknown query"}}')
    ('parsing_exception', 'unknown query')

    A request to several indices that fails in some has no error of its own, but those of shards:

    >>> error_of(b'{"_shards": {"failures": [{"reason": {"type": "index_closed_exception", "reason": "closed"}}]}}')
    ('index_closed_exception', 'closed')

    A search that fails in some shards says so, and why only for each shard: the reason counts that does not pass.

    >>> error_of(b'{"error": {"type": "search_phase_execution_exception", "reason": "Partial shards failure", '
    ...     b'"failed_shards": [{"reason": {"type": "search_context_missing_exception", "reason": "No context"}}]}}')
    ('search_context_missing_exception', 'No context')
    """
    text = body if isinstance(body, bytes) else str(body or "").encode()
    try:
        found = orjson.loads(text)
        error = found["error"] if "error" in found else found["_shards"]["failures"][0]["reason"]
        if isinstance(error, str):
            return "", error
        if error["type"] == _OF_SHARDS and (shards := [shard["reason"] for shard in error.get("failed_shards", ())]):
            error = next((reason for reason in shards if reason["type"] not in FOR_NOW), shards[0])
        return str(error["type"]), str(error.get("reason") or "")
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
        return "", text[:300].decode("utf-8", "replace")


class _Bytes(elastic_transport.Serializer):
    """Leaves bodies as they are."""

    def loads(self, data: bytes) -> bytes:
        return data

    def dumps(self, data: bytes) -> bytes:
        return data


class _Json(_Bytes):
    mimetype: ClassVar[str] = "application/json"


class _Ndjson(_Bytes):
    mimetype: ClassVar[str] = "application/x-ndjson"


class _VendorJson(_Bytes):
    mimetype: ClassVar[str] = "application/vnd.elasticsearch+json"


class _VendorNdjson(_Bytes):
    mimetype: ClassVar[str] = "application/vnd.elasticsearch+x-ndjson"
