"""Pseudonyms for clients, and no query strings: applied to what the parser gives, before anybody stores it.

Whoever reads raw records to store or show them parses with `reader_of(settings).parse`; that is `parse` itself where
privacy is off. What is done to each column is told in docs/privacy.md. Settings: `oddlog/settings_privacy.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import replace

import polars as pl
from pydantic import BaseModel, ConfigDict

from oddlog.errors import UsageError
from oddlog.events.parse import Parsed, parse
from oddlog.events.record import Records
from oddlog.events.schema import URL_PATH
from oddlog.settings_privacy import SHORTEST_KEY, PrivacySettings

Parser = Callable[[Records], Parsed]
"""Records in, events and dead letters out, as `parse`."""

MOST_REMEMBERED = 200_000
"""Pseudonyms kept by a reader: a hash costs some 2 us, a look-up a twentieth of that."""

ADDRESS_IN_TEXT = "client"
"""What stands for the client's own address where another field repeats it."""

PSEUDONYM = re.compile(r"c-[0-9a-f]{32}")
"""What clients are called."""

_CLIENT, _USER, _ORIGINAL, _FINGERPRINT = b"client", b"user", b"original", b"fingerprint"
_SHORTEST_ADDRESS = 7
"""Characters of an address that is looked for in other fields, as in 1.2.3.4; `::1` may be part of anything."""

_USERINFO = r"(?i)^([a-z][a-z0-9+.-]*://)[^/?#@]*@"
_QUERY = r"(?s)[?#].*$"


class PrivacyStamp(BaseModel):
    """Under which privacy something was made. It tells nothing of the key: a keyed hash of a constant names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clients: bool
    """Whether clients are pseudonyms."""
    queries: bool
    """Whether query strings were dropped."""
    key: str | None
    """Fingerprint of the key; None where it is not known here."""

    def __str__(self) -> str:
        done = [
            *(["pseudonymised clients"] if self.clients else []),
            *(["dropped query strings"] if self.queries else []),
        ]
        return " and ".join(done) + (f" (key {self.key})" if self.key else "")


class Reader:
    """Reads raw records: plainly, or with what was learnt of people taken out. Threads may share it."""

    def __init__(self, key: bytes | None = None, *, clients: bool = False, queries: bool = False) -> None:
        """Nothing given: plainly. `clients` makes pseudonyms, `queries` drops query strings; either needs the key."""
        self._key, self._clients, self._queries = key or b"", clients, queries
        self._original_key = hmac.digest(self._key, _ORIGINAL, "sha256")
        self._known: dict[str, str] = {}
        private = clients or queries
        if private and key is None:
            raise ValueError("privacy without a key")
        self.stamp = PrivacyStamp(clients=clients, queries=queries, key=fingerprint(self._key)) if private else None
        """Under which privacy events are made; None where there is none."""
        self.parse: Parser = self._parse if private else parse
        """As `oddlog.events.parse.parse`."""

    def kept(self, records: Records) -> Records:
        """What may be kept of records that are parsed: of private ones their positions alone."""
        return records if self.stamp is None else replace(records, value=[b""] * len(records))

    def pseudonym(self, client: str) -> str:
        """What a client is called in the store, `c-` and 32 hexadecimal digits; itself where clients are kept.

        >>> Reader().pseudonym("192.0.2.1")
        '192.0.2.1'
        >>> Reader(b"k" * 32, clients=True).pseudonym("192.0.2.1")
        'c-...'
        """
        if not self._clients:
            return client
        found = self._known.get(client)
        if found is None:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            found = self._known[client] = f"c-{self._hash(_CLIENT, client)}"
        return found

    def name_of(self, client: str) -> str:
        """What a client is called in the store, given by address or as the store calls it.

        >>> reader = Reader(b"k" * 32, clients=True)
        >>> reader.name_of(reader.pseudonym("192.0.2.1")) == reader.name_of("192.0.2.1")
        True
        """
        return client if PSEUDONYM.fullmatch(client) else self.pseudonym(client)

    def _parse(self, records: Records) -> Parsed:
        parsed = parse(records)
        events = without_queries(parsed.events) if self._queries else parsed.events
        if self._clients:
            events = self._without_clients(events)
        originals = [self._digest(text) for text in events["event.original"].to_list()]
        # A digest and no text: enough to tell whether a position holds the same record as before.
        events = events.with_columns(("withheld:" + pl.Series(originals, dtype=pl.String)).alias("event.original"))
        return Parsed(events, _withheld(parsed.dead))

    def _without_clients(self, events: pl.DataFrame) -> pl.DataFrame:
        address, ip = events["source.address"], events["source.ip"]
        told = [
            _without_own_address(events[name].str.replace(_USERINFO, "${1}"), ip)
            for name in ("url.original", "url.query", "http.request.referrer", "user_agent.original")
        ]
        users = [None if user is None else f"u-{self._hash(_USER, user)}" for user in events["user.name"].to_list()]
        return events.with_columns(
            pl.Series("source.address", list(map(self.pseudonym, address.to_list())), dtype=pl.String),
            pl.lit(None, dtype=pl.String).alias("source.ip"),
            pl.Series("user.name", users, dtype=pl.String),
            *told,
        ).with_columns(URL_PATH)

    def _digest(self, text: str) -> str:
        """BLAKE2b with a key (RFC 7693), 128 bits: every event has one, and HMAC takes three times as long."""
        return hashlib.blake2b(
            text.encode("utf-8", "surrogatepass"), key=self._original_key, digest_size=16
        ).hexdigest()  # fmt: skip

    def _hash(self, purpose: bytes, text: str) -> str:
        """HMAC-SHA-256 (RFC 2104), first 128 bits; a purpose each: a client and a user of one name differ."""
        return hmac.digest(self._key, purpose + b"\0" + text.encode("utf-8", "surrogatepass"), "sha256").hex()[:32]


def reader_of(settings: PrivacySettings) -> Reader:
    """The reader that the settings ask for. Raises UsageError where its key is missing, short, or cannot be read."""
    if not settings.on:
        return Reader()
    key = _key_of(settings)
    if key is None:
        raise UsageError(
            "privacy is on, and there is no key",
            expected="privacy.key or privacy.key_file, with 32 characters or more that nobody guesses",
            mend="openssl rand -base64 32 > privacy.key; ODDLOG_PRIVACY__KEY_FILE=privacy.key; docs/privacy.md",
        )
    return Reader(key, clients=settings.clients != "keep", queries=settings.queries != "keep")


def stamp_of(settings: PrivacySettings) -> PrivacyStamp | None:
    """The stamp of the settings, its key None where there is none here. Raises UsageError for a key that is no good."""
    if not settings.on:
        return None
    key = _key_of(settings)
    return PrivacyStamp(
        clients=settings.clients != "keep",
        queries=settings.queries != "keep",
        key=None if key is None else fingerprint(key),
    )


def fingerprint(key: bytes) -> str:
    """What a key is told by: 16 hexadecimal digits that it cannot be computed from.

    >>> fingerprint(b"k" * 32) == fingerprint(b"l" * 32)
    False
    """
    return hmac.digest(key, _FINGERPRINT, "sha256").hex()[:16]


def without_queries(events: pl.DataFrame) -> pl.DataFrame:
    """Events (EVENT_SCHEMA) whose URLs and referrers end before `?` or `#`: features see what the store keeps."""
    cut = [name for name in ("url.original", "url.path", "http.request.referrer") if name in events.columns]
    none = [pl.lit(None, dtype=pl.String).alias("url.query")] if "url.query" in events.columns else []
    return events.with_columns(pl.col(cut).str.replace(_QUERY, ""), *none)


def _key_of(settings: PrivacySettings) -> bytes | None:
    if settings.key is not None:
        return settings.key.get_secret_value().strip().encode()
    if settings.key_file is None:
        return None
    try:
        key = settings.key_file.read_bytes().strip()
    except OSError as error:
        raise UsageError(
            f"privacy.key_file {settings.key_file} cannot be read: {error.strerror}",
            expected="a file that this user may read, with the key alone",
            mend="openssl rand -base64 32 > FILE, once; then the same file everywhere",
        ) from None
    if len(key) < SHORTEST_KEY:
        raise UsageError(
            f"privacy.key_file {settings.key_file} holds {len(key)} characters",
            expected=f"{SHORTEST_KEY} or more",
            mend="openssl rand -base64 32 > FILE",
        )
    return key


def _without_own_address(texts: pl.Series, ip: pl.Series) -> pl.Series:
    """Texts in which the address of their own row's client stands as ADDRESS_IN_TEXT."""
    frame = pl.DataFrame({"text": texts, "ip": ip})
    holds = frame.select(
        (pl.col("ip").str.len_bytes() >= _SHORTEST_ADDRESS) & pl.col("text").str.contains(pl.col("ip"), literal=True)
    ).to_series()
    rows = holds.fill_null(False).arg_true().to_list()
    if not rows:
        return texts
    return texts.scatter(rows, [texts[row].replace(ip[row], ADDRESS_IN_TEXT) for row in rows])


def _withheld(dead: pl.DataFrame) -> pl.DataFrame:
    """Dead letters without the record, whose fields nobody knows: kind, position, size, and what was expected."""
    size = pl.col("original").bin.size().cast(pl.String)
    expected = pl.col("reason").str.extract(r"(?s).*; (expected .*)$").fill_null("expected a log line or JSON")
    told = pl.concat_str(pl.lit("found a record of "), size, pl.lit(" bytes, withheld for privacy; "), expected)
    return dead.with_columns(reason=told, original=pl.lit(b""))
