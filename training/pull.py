"""Events from the store into a snapshot: streamed, a part of one partition at a time, resumed where it was interrupted.

The store is read partition by partition, each in offset order, which is record order. Parts are written beside their
place and renamed, so that one that is there is whole; a part's last offset tells where to go on. What the snapshot
holds is in `dataset.py`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
from pyarrow import ArrowException, parquet

from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import UsageError
from oddlog.events.schema import ANOMALY_SCHEMA, EVENT_ID, EVENT_SCHEMA, POSITION_ORDER, URL_PATH
from oddlog.settings import without_credentials
from training.dataset import (
    STORED_FEATURES,
    Dataset,
    RowDigest,
    Selection,
    batches_of,
    period_in_words,
)
from training.marks import NO_MARKS, Marks
from training.progress import Counted, Progress
from training.sample import in_sample

PART_ROWS = 100_000
"""Events that an interruption loses at most."""
RESUME_WITHIN = dt.timedelta(days=1)
"""An older unfinished pull is thrown away: whoever asks again wants newer events."""

_PLAN = "plan.json"
_OFFSET = POSITION_ORDER[3]
_MADE = {"_id": EVENT_ID, "url.path": URL_PATH}
"""Columns that are made of others: of the position, of `url.original`."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a pull reads, fixed when it began: a resumed one reads the same."""

    until: dt.datetime
    """Events that come later are another pull's."""
    partitions: list[tuple[str, str, int]]


def pull(
    store: Store,
    selection: Selection,
    *,
    url: str,
    folder: Path,
    pulls: Path | None = None,
    min_events: int = 1,
    part_rows: int = PART_ROWS,
    marks: Marks = NO_MARKS,
    progress: Progress | None = None,
) -> Dataset:
    """Read the selected events and snapshot them below `folder` as `<digest>.parquet`, `marks` laid over them.

    `url` is the store's, for the record. An interrupted pull leaves its parts below `pulls` (default: `folder`); the
    next one for the same selection goes on from there. Only a part is in memory at a time. Raises UsageError where
    fewer than `min_events` events fit.
    """
    tell = progress or (lambda _: None)
    folder.mkdir(parents=True, exist_ok=True)
    with _place(pulls or folder, _key(selection, url)) as place:
        plan = _plan(store, selection, place)
        with _Joined(selection, place, folder, marks) as joined:
            query = replace(selection.query, until=plan.until if plan else None)
            counted = Counted(tell, store.count_events(query) if progress and plan else 0)
            for number, partition in enumerate(plan.partitions if plan else []):
                _pull_partition(store, selection, query, partition, place, number, part_rows, joined.add, counted, tell)
            joined.wait()
            if joined.rows == 0 or joined.rows < min_events:
                shutil.rmtree(place)
                raise _too_few(store, joined.rows, min_events, selection)
            dataset = joined.dataset(url)
        shutil.rmtree(place)
    return dataset


def _pull_partition(
    store: Store,
    selection: Selection,
    query: EventQuery,
    partition: tuple[str, str, int],
    place: Path,
    number: int,
    part_rows: int,
    add: Callable[[Path], None],
    counted: Counted,
    tell: Progress,
) -> None:
    """Give every part of one partition to `add`: those that are there already, and those that are still to be read."""
    done = place / f"{number:05d}.done"
    parts = _whole_parts(place, number)
    for part in parts:
        add(part)
    there = sum(parquet.read_metadata(part).num_rows for part in parts)
    counted.spare(round(there / selection.sample))
    if done.exists():
        return
    epoch, topic, partition_number = partition
    query = replace(query, epoch=epoch, topic=topic, partition=partition_number)
    if parts:
        last = pl.scan_parquet(parts[-1]).select(pl.col(_OFFSET).last()).collect().item()
        tell(f"going on with an interrupted pull after offset {last:,} of {topic} {partition_number}")
        query = replace(query, from_offset=last + 1)
    # What is made of other columns need not be read.
    columns = [name for name in selection.columns if name not in _MADE]
    held: list[pl.DataFrame] = []

    def write() -> None:
        path = place / f"{number:05d}-{len(parts):06d}.parquet"
        beside = path.with_suffix(".new")
        pl.concat(held).write_parquet(beside, compression="lz4", statistics=False)  # read once, soon
        os.replace(beside, path)
        parts.append(path)
        add(path)
        held.clear()

    for frame in store.read_events(query, columns=columns, order="position"):
        kept = _kept(frame.with_columns(_MADE.values()).select(selection.columns), selection)
        if kept.height:
            held.append(kept)
        if sum(one.height for one in held) >= part_rows:
            write()
        counted.add(frame.height)
    if held:
        write()
    done.touch()


def _kept(frame: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    if selection.baseline is not None:  # a document may lack what its baseline promises; it teaches nothing
        frame = frame.drop_nulls(list(STORED_FEATURES))
    return frame.filter(in_sample(frame["source.address"], selection.sample)) if selection.sample < 1 else frame


def _whole_parts(place: Path, number: int) -> list[Path]:
    """The parts of a partition up to the first that cannot be read, as after a loss of power."""
    whole: list[Path] = []
    for path in sorted(place.glob(f"{number:05d}-*.parquet")):
        try:
            parquet.read_metadata(path)
        except (ArrowException, OSError):
            break
        whole.append(path)
    return whole


def _plan(store: Store, selection: Selection, place: Path) -> _Plan | None:
    """The plan of the interrupted pull, or a new one; None where no event fits."""
    path = place / _PLAN
    if path.exists():
        written = json.loads(path.read_text())
        partitions = [(epoch, topic, int(number)) for epoch, topic, number in written["partitions"]]
        return _Plan(dt.datetime.fromisoformat(written["until"]), partitions)
    span = store.time_range(selection.query)
    if span is None:
        return None
    until = selection.until or span[1] + dt.timedelta(milliseconds=1)
    plan = _Plan(until, store.partitions(replace(selection.query, until=until)))
    beside = path.with_suffix(".new")
    started = dt.datetime.now(dt.UTC).isoformat()
    beside.write_text(json.dumps({"started": started, "until": until.isoformat(), "partitions": plan.partitions}))
    os.replace(beside, path)
    return plan


@contextlib.contextmanager
def _place(pulls: Path, key: str) -> Iterator[Path]:
    """The folder for the parts of a pull, this process's alone; unfinished ones that are too old are removed.

    Where another process is at the same pull, a folder that is no one else's and is not resumed.
    """
    pulls.mkdir(parents=True, exist_ok=True)
    for plan in pulls.glob(f"*/{_PLAN}"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            started = dt.datetime.fromisoformat(json.loads(plan.read_text())["started"])
            if dt.datetime.now(dt.UTC) - started > RESUME_WITHIN:
                with _lock(plan.parent.with_suffix(".lock")) as ours:
                    if ours:
                        shutil.rmtree(plan.parent)
    with _lock(pulls / f"{key}.lock") as ours:
        if ours:
            place = pulls / key
            place.mkdir(exist_ok=True)
            yield place
            return
    with tempfile.TemporaryDirectory(dir=pulls) as folder:
        place = Path(folder) / key
        place.mkdir()
        yield place


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Whether a lock was taken; it ends with the `with`, or with the process."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before removed it at the end: a lock on what is gone keeps nobody out.
            ours = path.stat().st_ino == os.fstat(file.fileno()).st_ino
        except OSError:
            ours = False
        try:
            yield ours
        finally:
            if ours:
                path.unlink(missing_ok=True)


class _Joined:
    """One file of all parts, written among them and renamed into `folder`; the digest is taken on the way.

    Parts are joined in a thread of their own, in the order that they are added, while the store is asked for the next.
    What is unfinished is made anew by the next pull, and overwritten."""

    def __init__(self, selection: Selection, place: Path, folder: Path, marks: Marks) -> None:
        self.rows = 0
        self._selection, self._folder, self._marks = selection, folder, marks
        self._digest = RowDigest(selection.columns)
        self._unfinished = place / "joined.new"
        self._schema = pl.DataFrame(schema=_types(selection)).to_arrow().schema
        self._writer = parquet.ParquetWriter(self._unfinished, self._schema, compression="zstd")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="join")
        self._due: deque[Future[None]] = deque()

    def __enter__(self) -> _Joined:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._writer.close()

    def add(self, part: Path) -> None:
        """Join a part; what failed with one before is raised here, or by `wait`."""
        while self._due and self._due[0].done():
            self._due.popleft().result()
        self._due.append(self._thread.submit(self._write, part))

    def wait(self) -> None:
        """Until every part that was added is joined."""
        while self._due:
            self._due.popleft().result()

    def dataset(self, url: str) -> Dataset:
        """The whole, in its place."""
        self._writer.close()
        digest = self._digest.hex()
        snapshot = self._folder / f"{digest}.parquet"
        beside = self._folder / f".{uuid.uuid4().hex}.parquet"
        shutil.move(self._unfinished, beside)  # a copy, where parts are on another file system
        os.replace(beside, snapshot)
        marks = f", under {len(self._marks)} marks" if len(self._marks) else ""
        return Dataset.of(snapshot, digest=digest, source=self._selection.describe(url) + marks)

    def _write(self, part: Path) -> None:
        for raw in batches_of(part):
            frame = self._marks.over(raw)
            self.rows += frame.height
            self._digest.add(frame)
            self._writer.write_table(frame.to_arrow().cast(self._schema))


def _types(selection: Selection) -> dict[str, pl.DataType | type[pl.DataType]]:
    known = {**EVENT_SCHEMA, **ANOMALY_SCHEMA, **dict.fromkeys(STORED_FEATURES, pl.Float32)}
    return {name: known[name] for name in selection.columns}


def _key(selection: Selection, url: str) -> str:
    """Name of a pull: another selection or store is another pull."""
    text = f"{without_credentials(url)}|{selection!r}|{selection.columns}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _too_few(store: Store, rows: int, needed: int, selection: Selection) -> UsageError:
    held = store.count_events(EventQuery())
    if held == 0:
        return UsageError(
            "the store holds no events",
            expected=f"at least {needed:,} (setting train.min_events)",
            mend="oddlog enrich --until-idle 2, or oddlog demo",
        )
    since, until = selection.since, selection.until
    found = f"{rows:,} {period_in_words(since, until) if since or until else 'events'} to train on"
    if selection.baseline is not None:
        found += f" with features stored under the baseline {selection.baseline[:12]}"
    if selection.sample < 1:
        found += f" in a sample of {100 * selection.sample:.3g} % of the clients"
    ends = store.time_range(EventQuery()) if since or until or selection.baseline else None
    if ends is not None:
        found += f"; the store holds {held:,}, from {ends[0]:%Y-%m-%d %H:%M:%S} to {ends[1]:%Y-%m-%d %H:%M:%S} UTC"
    return UsageError(
        found,
        expected=f"at least {needed:,} (setting train.min_events)",
        mend="a longer period (--since, --until), more events (oddlog enrich), or ODDLOG_TRAIN__MIN_EVENTS"
        if selection.baseline is None
        else "oddlog train --features refit, or more events enriched under the champion",
    )
