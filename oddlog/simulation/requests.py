"""The columns of a simulated request, and how it is written as a line of the combined log format."""

from __future__ import annotations

import polars as pl

REQUEST_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "time": pl.Int64,  # UTC milliseconds since 1970
    "client": pl.String,
    "method": pl.String,  # "" where the request line is garbage, which `target` then holds whole
    "target": pl.String,  # as the server logs it: a quote and a backslash are escaped by a backslash
    "protocol": pl.String,  # "HTTP/1.1"; "" where the request line is garbage
    "status": pl.Int32,
    "bytes": pl.Int64,
    "referrer": pl.String,  # null: none
    "agent": pl.String,  # null: none
    "label": pl.String,  # `benign` or `attack:<scenario>`
}
"""One row a request, whoever made it."""


def combined_lines(requests: pl.DataFrame) -> pl.Series:
    """Requests as lines of the combined log format (Apache, nginx), in UTC, without line ends.

    >>> row = {"time": 0, "client": "192.0.2.1", "method": "GET", "target": "/", "protocol": "HTTP/1.1",
    ...        "status": 200, "bytes": 512, "referrer": None, "agent": "curl/8.5.0", "label": "benign"}
    >>> combined_lines(pl.DataFrame([row], schema=REQUEST_SCHEMA))[0]
    '192.0.2.1 - - [01/Jan/1970:00:00:00 +0000] "GET / HTTP/1.1" 200 512 "-" "curl/8.5.0"'
    """
    # A second occurs in many lines: format each once.
    second = pl.col("time") // 1000
    stamps = (
        requests.select(second.unique(maintain_order=True).alias("second"))
        .with_columns(
            pl.from_epoch("second", time_unit="s").dt.strftime("%d/%b/%Y:%H:%M:%S +0000").alias("stamp")
        )
    )  # fmt: skip
    request_line = (
        pl.when(pl.col("method") == "")
        .then(pl.col("target"))
        .otherwise(pl.concat_str("method", pl.lit(" "), "target", pl.lit(" "), "protocol"))
    )
    return (
        requests.with_columns(second.alias("second"))
        .join(stamps, on="second", how="left", maintain_order="left")
        .select(
            pl.concat_str(
                "client", pl.lit(" - - ["), "stamp", pl.lit('] "'), request_line, pl.lit('" '),
                pl.col("status").cast(pl.String), pl.lit(" "), pl.col("bytes").cast(pl.String), pl.lit(' "'),
                pl.col("referrer").fill_null("-"), pl.lit('" "'), pl.col("agent").fill_null("-"), pl.lit('"'),
            ).alias("line")
        )
        .to_series()
    )  # fmt: skip
