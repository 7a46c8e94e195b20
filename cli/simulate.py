"""`oddlog simulate`: writes a simulated log and its labels to files. What the traffic is: `oddlog/simulation`."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Json, emit_json, out, show_table, verb
from cli.stages import shares
from cli.times import moment
from oddlog.errors import UsageError
from oddlog.whole_file import whole_file

if TYPE_CHECKING:
    import polars as pl

_CHUNK = 100_000


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("simulate")(simulate)


@verb
def simulate(
    out_path: Annotated[
        str | None,
        typer.Option("--out", "-o", help="File for the lines; .gz is packed; - is standard output."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="File for a label per line. By default <out>.labels.", show_default=False),
    ] = None,
    lines: Annotated[int | None, typer.Option("--lines", "-n", help="Exactly so many lines.")] = None,
    days: Annotated[float | None, typer.Option("--days", help="Over so many days (7, if lines are given).")] = None,
    rate: Annotated[
        float | None, typer.Option("--lines-per-day", help="Rate, instead of --lines or --days (10000).")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--start", help="Begin, ISO-8601; without an offset UTC (2026-03-02).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same bytes.")] = 0,
    release_after: Annotated[
        float | None,
        typer.Option("--release-after", help="Share of the time after which a release moves paths."),
    ] = None,
    attacks: Annotated[
        str, typer.Option("--attacks", help="Scenarios with commas between, `all` or `none`; see --list.")
    ] = "all",
    attack_share: Annotated[float, typer.Option("--attack-share", help="Share of lines that are attacks.")] = 0.02,
    attacks_after: Annotated[
        float, typer.Option("--attacks-after", help="Share of the time that is free of attacks at first.")
    ] = 0.0,
    list_scenarios: Annotated[bool, typer.Option("--list", help="List the attack scenarios, and stop.")] = False,
    json: Json = False,
) -> None:
    """Write log lines of a believable site, with attacks in them and a label for every line."""
    if list_scenarios:
        _list(json)
        return
    if out_path is None:
        raise UsageError("no file to write to", expected="--out FILE, or --out - for standard output",
                         mend="oddlog simulate --lines 20000 --out access.log")  # fmt: skip
    if out_path == "-" and json:
        raise UsageError("--json and --out - both want standard output", expected="one of them")
    label_path = labels or (Path(f"{out_path}.labels") if _is_file_or_none(Path(out_path)) else None)
    targets = [path for path in (None if out_path == "-" else Path(out_path), label_path) if path]
    for path in targets:
        if path.is_dir() or not path.parent.is_dir():
            raise UsageError(f"cannot write to {path}", expected="a file in a folder that exists")

    from oddlog.simulation.traffic import START
    from oddlog.simulation.traffic import simulate as run

    with shares() as tell:
        made = run(
            seed=seed, start=START if start is None else moment("--start", start), lines=lines, days=days,
            lines_per_day=rate, release_after=release_after, attacks=_scenarios(attacks),
            attack_share=attack_share, attacks_after=attacks_after,
            progress=lambda what, share: tell(f"simulating {what}", share),
        )  # fmt: skip
    try:
        # Labels first: whoever waits for the log finds them there.
        if label_path is not None:
            _write(label_path, made.frame["label"])
        if out_path == "-":
            _print(made.frame["line"])
        else:
            _write(Path(out_path), made.frame["line"])
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"cannot write: {error}", expected="a file that may be written") from None
    if out_path == "-":
        return
    counts = {str(label): int(count) for label, count in made.frame["label"].value_counts().sort("label").iter_rows()}
    summary: dict[str, Any] = {
        "lines": len(made.frame), "out": out_path, "labels_file": str(label_path) if label_path else None, "seed": seed,
        "start": made.start.isoformat(), "end": made.end.isoformat(),
        "release": made.release.isoformat() if made.release else None,
        "clients": made.frame["client"].n_unique(), "labels": counts,
    }  # fmt: skip
    if json:
        emit_json(summary)
        return
    out.print(
        f"{summary['lines']:,} lines of {summary['clients']:,} clients, {summary['start']} to {summary['end']}, "
        f"in {out_path}" + (f"; labels in {label_path}" if label_path else ""),
        highlight=False, soft_wrap=True, markup=False,
    )  # fmt: skip
    show_table(None, ["label", "lines"], [(label, f"{count:,}") for label, count in counts.items()])


def _list(json: bool) -> None:
    from oddlog.simulation.attacks import SCENARIOS

    rows = [(scenario.name, scenario.sentence) for scenario in SCENARIOS.values()]
    if json:
        emit_json(dict(rows))
    else:
        show_table(None, ["scenario", "what happens"], rows)


def _scenarios(text: str) -> list[str] | None:
    """None is all of them."""
    if text == "all":
        return None
    return [] if text in ("none", "") else [name.strip() for name in text.split(",") if name.strip()]


def _chunks(column: pl.Series) -> Iterator[bytes]:
    for first in range(0, len(column), _CHUNK):
        yield ("\n".join(column[first : first + _CHUNK].to_list()) + "\n").encode()


def _is_file_or_none(path: Path) -> bool:
    """Whether a regular file is there, or nothing yet: what labels can lie beside."""
    return str(path) != "-" and (path.is_file() or not path.exists())


def _write(path: Path, column: pl.Series) -> None:
    """Write beside, then rename; what is no regular file (a pipe, /dev/null) is written to as it is."""
    if not _is_file_or_none(path):
        with path.open("wb") as target:
            target.writelines(_chunks(column))
        return
    with whole_file(path) as beside, _packed(beside, path.suffix == ".gz") as target:
        target.writelines(_chunks(column))


@contextmanager
def _packed(path: Path, gz: bool) -> Iterator[IO[bytes]]:
    """A file to write bytes to; packed ones carry no time and no name, so that equal lines give equal bytes."""
    with path.open("wb") as raw:
        if gz:
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as packer:
                yield packer  # type: ignore[misc]
        else:
            yield raw


def _print(column: pl.Series) -> None:
    for chunk in _chunks(column):
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
