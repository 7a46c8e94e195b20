"""Bulk requests: frames to NDJSON by polars, split by size, and what became of every row.

Errors are told by type, not by status: a closed index answers 400 like an unparseable document, and a write block
403 like a missing privilege. Which store methods use it, and with which actions, is `elastic.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
import polars as pl

from oddlog.connectors.documents import nested
from oddlog.connectors.elastic_connection import FOR_NOW, ElasticConnection, ElasticError
from oddlog.errors import StoreRefused, StoreUnavailable

_RETRY = FOR_NOW | {"index_not_found_exception"}  # a write makes its index, unless an operator forbade it just now
_TOO_LARGE = 413

AT_ONCE = 2
"""Requests of one `send` under way at once: Elasticsearch works through a request to one shard on a single thread."""

SPLIT_BYTES = 1_000_000
"""What is larger goes in two requests at least."""

_ISO = "%Y-%m-%dT%H:%M:%S%.3fZ"


@dataclass(slots=True)
class BulkOutcome:
    """What became of the lines of a bulk, by their number; a line in none of the mappings was carried out."""

    conflicts: dict[int, str] = field(default_factory=dict)
    """There already (create), changed since (update), or gone (update, delete): 409 and 404."""
    rejected: dict[int, str] = field(default_factory=dict)
    """For good, with Elasticsearch's reason."""
    retry: dict[int, str] = field(default_factory=dict)
    """For now, with the reason."""


def create_lines(frame: pl.DataFrame, index: pl.Expr) -> pl.Series:
    """One text a row: the `create` action into `index`, and the document. Columns that are null throughout are
    left out, for a missing field and a null one are the same to Elasticsearch."""
    columns = [name for name in frame.columns if name != "_id" and frame[name].null_count() < frame.height]
    action = pl.struct(index.alias("_index"), "_id")
    return _lines(frame, "create", action, columns, wrap="")


def update_lines(frame: pl.DataFrame, version: str, columns: Sequence[str]) -> pl.Series:
    """One text a row: the `update` guarded by the column `version` (what `version_text` made), and the fields to
    set, nulls included: they clear."""
    parts = pl.col(version).str.splitn(":", 3).struct
    action = pl.struct(
        parts.field("field_2").alias("_index"),
        "_id",
        parts.field("field_0").cast(pl.Int64, strict=False).alias("if_seq_no"),
        parts.field("field_1").cast(pl.Int64, strict=False).alias("if_primary_term"),
    )
    return _lines(frame, "update", action, columns, wrap="doc")


def delete_lines(ids: Sequence[str], index: str | Sequence[str]) -> pl.Series:
    """One text an id: the `delete` action, in one index or in one for each."""
    indices = [index] * len(ids) if isinstance(index, str) else index
    actions = [{"delete": {"_index": where, "_id": id}} for id, where in zip(ids, indices, strict=True)]
    return pl.Series([orjson.dumps(action).decode() + "\n" for action in actions], dtype=pl.String)


def indices_of(versions: pl.Series) -> list[str]:
    """The index of each document, by the `_version` that it was read with (`version_text`)."""
    return versions.str.splitn(":", 3).struct.field("field_2").to_list()


def version_text(index: pl.Expr, seq_no: pl.Expr, primary_term: pl.Expr) -> pl.Expr:
    """The opaque `_version` of a read document, which `update_lines` takes apart again."""
    return pl.concat_str(seq_no, primary_term, index, separator=":")


def send(
    connection: ElasticConnection, lines: pl.Series, action: Literal["create", "update", "delete"], max_bytes: int
) -> BulkOutcome:
    """Send every line once, in requests of at most `max_bytes` (a longer line goes alone), two at a time.

    A request that is too large for the server, or refused as a whole, is halved until the guilty line stands
    alone. Raises StoreRefused on 401 and 403 of security, StoreError where no Elasticsearch answers."""
    outcome = BulkOutcome()
    sizes = lines.str.len_bytes().to_list()
    total = sum(sizes)
    parts = list(_parts(sizes, min(max_bytes, total // 2 + max(sizes)) if total > SPLIT_BYTES else max_bytes))
    if len(parts) < 2:
        for start, length in parts:
            _send_part(connection, lines, start, length, action, outcome)
        return outcome
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="bulk") as threads:
        sent = [threads.submit(_send_part, connection, lines, *part, action, outcome) for part in parts]
        wait(sent, return_when=FIRST_EXCEPTION)
        for one in sent:  # where one is refused, those that have not begun would be as well
            one.cancel()
    for one in sent:
        if not one.cancelled():
            one.result()
    return outcome


def _send_part(
    connection: ElasticConnection, lines: pl.Series, start: int, length: int, action: str, outcome: BulkOutcome
) -> None:
    body = lines.slice(start, length).str.join("").item().encode()
    # Only what is read below: the full answer is several times as long. Every item keeps its place by its status.
    wanted = f"errors,items.{action}.status,items.{action}.error.type,items.{action}.error.reason"
    try:
        answer = orjson.loads(connection.request("POST", "/_bulk", body, params={"filter_path": wanted}, lines=True))
    except StoreUnavailable as error:
        outcome.retry.update(dict.fromkeys(range(start, start + length), error.found))
        return
    except ElasticError as error:
        if error.status >= 500:
            outcome.retry.update(dict.fromkeys(range(start, start + length), error.found))
        elif error.status != _TOO_LARGE and not (error.status == 400 and error.type):
            raise  # what answers is no bulk endpoint: no document is to blame
        elif length > 1:
            half = length // 2
            _send_part(connection, lines, start, half, action, outcome)
            _send_part(connection, lines, start + half, length - half, action, outcome)
        elif error.status == _TOO_LARGE:
            outcome.rejected[start] = (
                f"the document has {len(body)} bytes, more than Elasticsearch takes (http.max_content_length)"
            )
        else:
            outcome.rejected[start] = f"{error.type}: {error.reason}"
        return
    if answer["errors"] or action == "delete":  # that what is to be deleted is not there, is no error
        _read_items(answer["items"], action, start, outcome)


def _read_items(items: list[dict[str, Any]], action: str, start: int, outcome: BulkOutcome) -> None:
    for row, item in enumerate(items, start):
        done = item[action]
        status = int(done["status"])
        if status < 300:
            continue
        error = done.get("error") or {}
        type, reason = str(error.get("type") or ""), str(error.get("reason") or "")[:1000]
        text = f"{type}: {reason}"
        if action == "delete" and status == 404:
            outcome.conflicts[row] = text  # not even its index is there
        elif type in _RETRY or status == 429 or status >= 500:
            outcome.retry[row] = text
        elif status in {404, 409}:
            outcome.conflicts[row] = text
        elif status in {401, 403}:
            raise StoreRefused(
                f"Elasticsearch refuses a document with {status} {text}",
                expected="a user or API key with the privileges that docs/store.md lists",
                mend="set ODDLOG_STORE__USERNAME and ODDLOG_STORE__PASSWORD, or ODDLOG_STORE__API_KEY",
            )
        else:
            outcome.rejected[row] = text


def _parts(sizes: Sequence[int], max_bytes: int) -> Iterator[tuple[int, int]]:
    """Start and length of runs whose sizes add up to at most `max_bytes`, but of one at least.

    >>> list(_parts([4, 4, 4, 99, 4], 10))
    [(0, 2), (2, 1), (3, 1), (4, 1)]
    """
    start, total = 0, 0
    for row, size in enumerate(sizes):
        if row > start and total + size > max_bytes:
            yield start, row - start
            start, total = row, 0
        total += size
    if start < len(sizes):
        yield start, len(sizes) - start


def _lines(frame: pl.DataFrame, verb: str, action: pl.Expr, columns: Sequence[str], wrap: str) -> pl.Series:
    times = [name for name in columns if isinstance(frame.schema[name], pl.Datetime)]
    blobs = [name for name in columns if frame.schema[name] == pl.Binary]
    encoded = [pl.col(times).dt.to_string(_ISO)] * bool(times) + [pl.col(blobs).bin.encode("base64")] * bool(blobs)
    opened, closed = (f'{{"{wrap}":', "}\n") if wrap else ("", "\n")
    return frame.select(
        pl.concat_str(
            pl.lit(f'{{"{verb}":'),
            frame.select(action.struct.json_encode()).to_series(),
            pl.lit("}\n" + opened),
            frame.with_columns(encoded).select(pl.struct(nested(columns)).struct.json_encode()).to_series(),
            pl.lit(closed),
        )
    ).to_series()
