"""Common and combined log lines to columns. JSON is in `document.py`, what becomes of a misfit in `parse.py`.

Format: https://httpd.apache.org/docs/2.4/logs.html#accesslog; nginx's `combined` is the same. More fields
after the user agent (a quoted one, request times) are let through; so are Debian's `vhost_combined`, a list of
forwarded addresses, and ports behind addresses.
"""

from __future__ import annotations

import ipaddress

import numpy as np
import polars as pl

_HEAD = r"^([^ ]+) ([^ ]+) ((?:[^ \[]+ )+)\[([^\]\n]*)\] "
_QUOTED = r'"((?:[^"\\\n]|\\.)*)"'
_ANSWER = r" ([0-9]{3}|-) ([0-9]+|-)"
_TAIL = rf'(?: (?:{_QUOTED} {_QUOTED}(?: .*)?|[^"].*)?)?$'

# Each can decide by the next byte alone where it is, which lets the regex engine read captures in one pass
# (three times as fast as the usual way to write them). A sound request is split in the same pass.
_SOUND = rf'{_HEAD}"([A-Z]{{1,32}}) ([^ "\\\n]+) HTTP/([0-9.]+)"{_ANSWER}{_TAIL}'
_ANY_REQUEST = rf"{_HEAD}{_QUOTED}{_ANSWER}{_TAIL}"
# For servers that do not escape quotes: fields end where the next one begins.
_LOOSE = rf'{_HEAD}"(.*?)"{_ANSWER}(?: "(.*?)" "(.*?)"(?: (?:"[^"]*"|[^" ]+))*)?$'

_SOUND_COLUMNS = (
    "address", "ident", "user", "time", "method", "target", "version", "status", "bytes", "referrer", "agent",
)  # fmt: skip
_OTHER_COLUMNS = ("address", "ident", "user", "time", "request", "status", "bytes", "referrer", "agent")

_WITH_VERSION = r"(?s)^([A-Za-z][A-Za-z_-]{0,31}) (.+) HTTP/([0-9](?:\.[0-9]+)?)$"
_WITHOUT_VERSION = r"(?s)^([A-Z][A-Z_-]{0,31}) ((?:/|\*|https?://).*)$"

_ODD_HEAD = r",$|^[^:]+:[0-9]+$|^\[.*\](?::[0-9]+)?$"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"^{_OCTET}(?:\.{_OCTET}){{3}}$"

LINE_COLUMNS = (
    "address",
    "user",
    "time",
    "method",
    "target",
    "version",
    "status",
    "bytes",
    "referrer",
    "agent",
)
"""What `read_lines` gives, all String, as logged; `address` is null where the text is no log line."""

EXPECTED = 'CLIENT IDENT USER [DATE] "METHOD TARGET HTTP/x" STATUS BYTES ["REFERRER" "USER AGENT" ...]'


def read_lines(texts: pl.Series) -> pl.DataFrame:
    """LINE_COLUMNS for each text, in order. `-` is left as it is, but for the user, who is null then."""
    frame = _groups(texts, _SOUND, _SOUND_COLUMNS)
    missed = frame["address"].is_null()
    if missed.any():
        frame = _fill(frame, missed, _read_other(texts.filter(missed)))
    frame = frame.with_columns(
        user=pl.when(pl.col("user") != "- ").then(pl.col("user").str.strip_suffix(" ")),
    )
    odd = frame["address"].str.contains(_ODD_HEAD).fill_null(False)
    if odd.any():
        frame = _fill(frame, odd, _mend_heads(frame.filter(odd)))
    return frame.select(LINE_COLUMNS)


def split_requests(requests: pl.Series) -> pl.DataFrame:
    """method, target, version of request lines; garbage has the method "" and is its own target.

    >>> split_requests(pl.Series(["GET /a b HTTP/1.1", "GET /", "-"])).rows()
    [('GET', '/a b', '1.1'), ('GET', '/', None), ('', '-', None)]
    """
    full = _groups(requests, _WITH_VERSION, ("method", "target", "version"))
    short = _groups(requests, _WITHOUT_VERSION, ("method", "target"))
    empty = pl.repeat("", len(requests), dtype=pl.String, eager=True)
    return pl.DataFrame(
        {
            "method": _first_of(full["method"], short["method"], empty),
            "target": _first_of(full["target"], short["target"], requests),
            "version": full["version"],
        }
    )


def valid_ips(addresses: pl.Series) -> pl.Series:
    """The addresses that are IPv4 or IPv6, null for host names and zones (`fe80::1%eth0`).

    >>> valid_ips(pl.Series(["192.0.2.1", "2001:db8::1", "300.1.1.1", "host.example", None])).to_list()
    ['192.0.2.1', '2001:db8::1', None, None, None]
    """
    sound = addresses.str.contains(_IPV4).fill_null(False)
    if not sound.all():
        rest = addresses.filter(~sound)
        six = [text for text in rest.unique().to_list() if text is not None and ":" in text and is_ip(text)]
        if six:
            sound = sound | addresses.is_in(six).fill_null(False)
    return addresses.zip_with(sound, pl.Series([None], dtype=pl.String))


def is_ip(text: str) -> bool:
    """Whether Elasticsearch's type `ip` takes the text."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _read_other(texts: pl.Series) -> pl.DataFrame:
    frame = _groups(texts, _ANY_REQUEST, _OTHER_COLUMNS)
    missed = frame["address"].is_null()
    if missed.any():
        frame = _fill(frame, missed, _groups(texts.filter(missed), _LOOSE, _OTHER_COLUMNS))
    parts = split_requests(frame["request"])
    no_line = pl.Series([None], dtype=pl.String)
    method = parts["method"].zip_with(frame["address"].is_not_null(), no_line)
    return frame.with_columns(method, parts["target"], parts["version"]).select(_SOUND_COLUMNS)


def _mend_heads(frame: pl.DataFrame) -> pl.DataFrame:
    heads = frame.select("address", "ident", "user").rows()
    mended = [_mend_head(*head) for head in heads]
    return frame.with_columns(
        pl.Series("address", [address for address, _ in mended], dtype=pl.String),
        pl.Series("user", [user for _, user in mended], dtype=pl.String),
    )


def _mend_head(address: str, ident: str, user: str | None) -> tuple[str, str | None]:
    """Address and user of a line whose first field is a list, a virtual host, or has a port."""
    rest = (user or "-").split(" ")
    if address.endswith(","):  # "first, second, last ident user": the first is the client
        tokens = [ident, *rest]
        while len(tokens) > 1 and tokens[0].endswith(","):
            tokens.pop(0)
        return address.rstrip(",") or address, _name(tokens[2:])
    if is_ip(ident.strip("[]")):  # "virtual.host:443 client ident user"
        return ident.strip("[]"), _name(rest[1:])
    if address.startswith("["):
        inner = address[1 : address.index("]")]
        return (inner if is_ip(inner) else address), user
    host = address.rpartition(":")[0]
    return (host if is_ip(host) else address), user


def _name(tokens: list[str]) -> str | None:
    name = " ".join(tokens)
    return None if name in {"", "-"} else name


def _groups(texts: pl.Series, pattern: str, names: tuple[str, ...]) -> pl.DataFrame:
    return texts.str.extract_groups(pattern).struct.rename_fields(list(names)).struct.unnest()


def _fill(frame: pl.DataFrame, where: pl.Series, rows: pl.DataFrame) -> pl.DataFrame:
    """The frame with its rows `where` replaced, in order."""
    order = np.arange(frame.height)
    order[where.to_numpy()] = frame.height + np.arange(rows.height)
    return pl.concat([frame, rows.select(frame.columns)])[order]


def _first_of(*columns: pl.Series) -> pl.Series:
    return pl.select(pl.coalesce(*columns)).to_series()
