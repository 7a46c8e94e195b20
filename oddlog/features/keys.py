"""Keys of an event: path template, its first segments, tokens; standard files, assets. No counting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

ASSET_EXTENSIONS: tuple[str, ...] = (
    # styles, scripts, and what belongs to them
    *("css", "js", "mjs", "map", "woff", "woff2", "ttf", "otf", "eot"),
    # pictures
    *("png", "jpg", "jpeg", "jpe", "gif", "ico", "cur", "svg", "svgz", "webp", "avif", "bmp", "tif", "tiff"),
    # sound and film
    *(
        "mp3",
        "m4a",
        "ogg",
        "oga",
        "wav",
        "flac",
        "mp4",
        "m4v",
        "ogv",
        "webm",
        "mov",
        "avi",
        "wmv",
        "flv",
        "swf",
    ),
)
"""A request for one of these is no page: browsers fetch them on behalf of one."""

WELL_KNOWN: tuple[str, ...] = (
    "acme-challenge",
    "ai-plugin.json",
    "apple-app-site-association",
    "apple-developer-merchantid-domain-association",
    "assetlinks.json",
    "atproto-did",
    "autoconfig/mail",
    "caldav",
    "carddav",
    "change-password",
    "discord",
    "dnt",
    "dnt-policy.txt",
    "gpc.json",
    "host-meta",
    "host-meta.json",
    "keybase.txt",
    "matrix",
    "mta-sts.txt",
    "nodeinfo",
    "oauth-authorization-server",
    "openid-configuration",
    "openpgpkey",
    "passkey-endpoints",
    "pki-validation",
    "resource-that-should-not-exist-whose-status-code-should-not-be-200",
    "security.txt",
    "timezone",
    "traffic-advice",
    "trust.txt",
    "webauthn",
    "webfinger",
)
"""Registered names under /.well-known/ that programs ask for unasked. Not all of it: shells hide there."""

_STANDARD = (
    r"^/+(?:"
    r"favicon[^/]*\.(?:ico|png|gif|svg|jpg)"
    r"|apple-touch-icon[^/]*\.png"
    r"|robots\.txt"
    r"|sitemap[^/]*\.(?:xml|txt)(?:\.gz)?"
    r"|browserconfig\.xml"
    r"|(?:app-)?ads\.txt"
    r"|humans\.txt"
    r"|manifest\.json"
    r"|site\.webmanifest"
    r"|\.well-known/(?:" + "|".join(name.replace(".", r"\.") for name in WELL_KNOWN) + r")"
    r")$"
)

_ASSET = r"(?i)\.(?:" + "|".join(ASSET_EXTENSIONS) + r")$"


@dataclass(frozen=True, slots=True)
class UrlKeys:
    """Keys of m URLs.

    `paths`: a frame [m] of `tpl`, `p1`, `p2`, `standard`, `asset`; `token`: every distinct token of every URL, and
    `token_url`: whose it is.
    """

    paths: pl.DataFrame
    token: pl.Series
    token_url: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Keys(UrlKeys):
    """Keys of n events, row by row, over the m distinct URLs among them.

    `url` int64 [n]: number of the row's URL; `method` (null as ""), `status` (null as 0) of the rows.
    """

    url: npt.NDArray[np.int64]
    method: pl.Series
    status: npt.NDArray[np.int64]


def keys_of(events: pl.DataFrame) -> Keys:
    """Keys of a frame of events (columns of EVENT_SCHEMA)."""
    rows = urls_of(events)
    distinct = rows.unique(maintain_order=True)
    numbered = distinct.with_row_index("url")
    number = rows.join(numbered, on=["original", "path"], how="left", maintain_order="left")["url"]
    urls = url_keys(distinct)
    return Keys(
        paths=urls.paths,
        token=urls.token,
        token_url=urls.token_url,
        url=number.to_numpy().astype(np.int64),
        method=methods_of(events),
        status=statuses_of(events),
    )


def urls_of(events: pl.DataFrame) -> pl.DataFrame:
    """Every event's URL as `original`, "" where it has none, and its `path`: what is before `?`."""
    original = pl.col("url.original").fill_null("")
    return events.select(original=original, path=original.str.splitn("?", 2).struct.field("field_0").fill_null(""))


def url_keys(urls: pl.DataFrame) -> UrlKeys:
    """Keys of m URLs, a frame of `original` and `path` (`urls_of`).

    `tpl`: path with hexadecimal runs of 12 and more as `H` and other runs of digits as `0`; `p1`, `p2`: its
    first one and two segments. Tokens: the URL with runs of digits as `0`, split on what is not alphanumeric;
    each counted once a line, in order of appearance (so that sums over them come out the same in any batch).
    """
    paths = urls.select(
        tpl=template_of(pl.col("path")),
        standard=pl.col("path").str.contains(_STANDARD),
        asset=pl.col("path").str.contains(_ASSET),
    ).with_columns(
        p1=pl.col("tpl").str.extract(r"^(/?[^/]*)"),
        p2=pl.col("tpl").str.extract(r"^(/?[^/]*(?:/[^/]*)?)"),
    )
    tokens = (
        urls.with_row_index("url")
        .select(
            "url",
            token=pl.col("original")
            .str.replace_all(r"[0-9]+", "0")
            .str.extract_all(r"[0-9A-Za-z]+")
            .list.unique(maintain_order=True),
        )
        .filter(pl.col("token").list.len() > 0)
        .explode("token")
    )
    return UrlKeys(paths=paths, token=tokens["token"], token_url=tokens["url"].to_numpy().astype(np.int64))


def template_of(path: pl.Expr) -> pl.Expr:
    """The template of a path: `tpl` of `url_keys`.

    >>> pl.select(template_of(pl.lit("/item/42/0123456789ab"))).item()
    '/item/0/H'
    """
    return path.str.replace_all(r"[0-9a-fA-F]{12,}", "H").str.replace_all(r"[0-9]+", "0")


def methods_of(events: pl.DataFrame) -> pl.Series:
    """Method of every event, "" where it has none."""
    return events["http.request.method"].fill_null("").alias("method")


def statuses_of(events: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Status of every event, 0 where it has none."""
    return events["http.response.status_code"].fill_null(0).to_numpy().astype(np.int64)
