"""The loop of incidents over every store: written, updated, closed, each told once, whatever breaks off."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import polars as pl
import pytest

from monitoring import incidents_watch
from monitoring.incidents_gauges import IncidentGauges
from monitoring.incidents_watch import NAME, Watch
from monitoring.notify import Notifier
from monitoring.notify_receivers import receivers
from oddlog.connectors.store import Collection, EventQuery, Store
from oddlog.errors import StoreUnavailable
from oddlog.settings import IncidentSettings, NotifySettings, Settings
from serving.forget import forget
from tests.receivers import HttpReceiver
from tests.store_frames import MIDNIGHT, REASONS, acknowledged, read, scored
from tests.waiting import until

MINUTE, HOUR = dt.timedelta(minutes=1), dt.timedelta(hours=1)


@pytest.fixture
def web() -> Iterator[HttpReceiver]:
    with HttpReceiver().running() as one:
        yield one


class Clock:
    """The time that a watch goes by."""

    def __init__(self) -> None:
        self.time = MIDNIGHT

    def __call__(self) -> dt.datetime:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(web: HttpReceiver, clock: Clock) -> Callable[[Store], Watch]:
    """Another process' watch over a store."""

    def another(store: Store, **settings: Any) -> Watch:
        notify = NotifySettings(webhook=web.url, attempts=1)
        named, gauges = receivers(Settings(notify=notify)), IncidentGauges(["webhook"])
        return Watch(IncidentSettings(**settings), store, Notifier(notify, named, gauges), gauges, now=clock)

    return another


def odd(store: Store, begin: int, times: list[tuple[str, dt.datetime, str]], *, is_odd: bool = True) -> None:
    """Store an event of each (client, time, path), by position from `begin` on; the later the odder."""
    n = len(times)
    columns = {
        "anomaly__is_anomaly": [is_odd] * n,
        "anomaly__reasons": [REASONS] * n,
        "anomaly__severity": [3.0 + (begin + row) / 100 for row in range(n)],
        "source__address": [client for client, _, _ in times],
        "url__path": [path for _, _, path in times],
        "url__original": [f"{path}?q" for _, _, path in times],
    }
    moments = pl.Series("@timestamp", [time for _, time, _ in times], dtype=pl.Datetime("ms", "UTC"))
    frame = scored(n, start=begin, **columns).with_columns(moments)
    acknowledged(store.write_events(frame))
    store.refresh()


def documents(store: Store) -> list[dict[str, Any]]:
    return [{k: v for k, v in one.items() if k != "updated_at"} for one in store.list_documents("incidents")]


def test_an_incident_is_found_goes_on_is_closed_and_told_once(
    store: Store, clock: Clock, watch: Callable[[Store], Watch], web: HttpReceiver
) -> None:
    odd(store, 0, [("192.0.2.1", MIDNIGHT - 5 * MINUTE, "/a/7"), ("192.0.2.1", MIDNIGHT - 2 * MINUTE, "/b")])
    odd(store, 2, [("192.0.2.9", MIDNIGHT - MINUTE, "/c")], is_odd=False)
    one = watch(store)
    assert (one.round().found, one.round().found) == (1, 0)
    (first,) = documents(store)
    assert (first["status"], first["client"], first["events"], first["alerts"]) == ("open", "192.0.2.1", 2, 1)
    assert (first["first_seen"], first["last_seen"]) == ("2024-02-29T23:55:00.000Z", "2024-02-29T23:58:00.000Z")
    assert (first["paths"], first["severity"]) == (["/a/0", "/b"], 3.01)
    assert [reason["text"] for reason in first["reasons"]] == ["rare “words” in the URL"]
    assert first["example"]["url"] == "/b?q"

    clock.time += HOUR
    odd(store, 3, [("192.0.2.1", MIDNIGHT + 10 * MINUTE, "/d")])
    done = one.round()
    assert (done.found, done.changed, done.told) == (0, 1, 0)
    (second,) = documents(store)
    assert (second["id"], second["events"], second["alerts"], second["example"]["url"]) == (first["id"], 3, 2, "/d?q")

    clock.time += 2 * HOUR
    assert one.round().closed == 1
    (third,) = documents(store)
    assert (third["status"], third["closed_at"]) == ("closed", "2024-03-01T02:10:00.000Z")
    assert [body["incident"]["id"] for body in web.bodies] == [first["id"]]


def test_another_process_goes_on_where_one_died_and_repeats_nothing(
    store: Store, connect: Callable[[], Store], clock: Clock, watch: Callable[..., Watch], web: HttpReceiver
) -> None:
    odd(store, 0, [(f"192.0.2.{n}", MIDNIGHT - MINUTE, f"/{n * 'x'}") for n in range(1, 7)])
    for dies_at in range(1, 40):
        dying = DyingAt(connect(), dies_at)
        one = watch(dying, lock_seconds=0.001)
        try:
            one.round()
        except StoreUnavailable:
            continue
        break
    else:
        pytest.fail("no round came to its end")
    assert dies_at > 5, "it died while writing, and while telling"
    assert len(documents(store)) == 6
    ids = [body["id"] for body in web.bodies]
    assert len(set(ids)) == 6
    assert len(ids) <= 12, "told again at most where it died between telling and noting"
    before, told = documents(store), len(ids)
    assert watch(connect(), lock_seconds=0.001).round().changed == 0
    assert (documents(store), len(web.bodies)) == (before, told)


def test_what_could_not_be_noted_is_noted_when_the_store_is_back_and_not_told_again(
    store: Store, connect: Callable[[], Store], clock: Clock, watch: Callable[..., Watch], web: HttpReceiver
) -> None:
    odd(store, 0, [(f"192.0.2.{n}", MIDNIGHT - MINUTE, f"/{n * 'x'}") for n in range(1, 15)])
    away = DyingAt(connect(), 14 + 1 + 9 + 3)  # documents, the loop's place, nine messages, in the midst of the digest
    one = watch(away)
    with pytest.raises(StoreUnavailable):
        one.round()
    told = [body["id"] for body in web.bodies]
    assert len(told) == 10
    assert one.round().told == 0
    one.leave()
    assert watch(store).round().told == 0
    assert [body["id"] for body in web.bodies] == told


class DyingAt:
    """A store that fails at the write of that number, alone."""

    def __init__(self, store: Store, writes: int) -> None:
        self._store, self._left = store, writes

    def put_document(self, collection: Collection, id: str, document: Mapping[str, Any]) -> None:
        self._left -= 1
        if self._left == 0:
            raise StoreUnavailable("killed")
        self._store.put_document(collection, id, document)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_only_one_is_at_work(store: Store, connect: Callable[[], Store], watch: Callable[[Store], Watch]) -> None:
    one, other = watch(store), watch(connect())
    assert one.round().waiting_for == ""
    assert "holds the lock" in other.round().waiting_for
    one.leave()
    assert other.round().waiting_for == ""
    assert "holds the lock" in one.round().waiting_for


@pytest.mark.parametrize("hold_every", [1, 200])
def test_who_lost_the_lock_in_a_round_tells_nobody(
    store: Store, connect: Callable[[], Store], watch: Callable[..., Watch], web: HttpReceiver,
    monkeypatch: pytest.MonkeyPatch, hold_every: int,
) -> None:  # fmt: skip
    class Slow(DyingAt):
        """Its first write takes longer than the lock lasts."""

        def put_document(self, collection: Collection, id: str, document: Mapping[str, Any]) -> None:
            until(lambda: store.acquire_lock(NAME, "another", 60) in (None, "another"), "the end of the lock")
            super().put_document(collection, id, document)

    monkeypatch.setattr(incidents_watch, "HOLD_EVERY", hold_every)
    odd(store, 0, [("192.0.2.1", MIDNIGHT - MINUTE, "/a"), ("192.0.2.2", MIDNIGHT - MINUTE, "/b")])
    one = watch(Slow(connect(), 1_000), lock_seconds=0.05)
    if hold_every == 1:
        with pytest.raises(StoreUnavailable, match="another took the lock"):
            one.round()
    else:
        assert one.round().told == 0
    assert web.bodies == []


def test_who_lost_the_lock_while_it_read_writes_nothing(
    store: Store, connect: Callable[[], Store], watch: Callable[..., Watch], web: HttpReceiver
) -> None:
    class Slow(DyingAt):
        """Reading takes longer than the lock lasts."""

        def read_events(self, query: EventQuery, **options: Any) -> Iterator[pl.DataFrame]:
            until(lambda: store.acquire_lock(NAME, "another", 60) in (None, "another"), "the end of the lock")
            return self._store.read_events(query, **options)

    odd(store, 0, [("192.0.2.1", MIDNIGHT - MINUTE, "/a")])
    with pytest.raises(StoreUnavailable, match="another took the lock"):
        watch(Slow(connect(), 1_000), lock_seconds=0.05).round()
    assert documents(store) == []
    assert web.bodies == []


def test_what_another_did_meanwhile_is_read(
    store: Store, connect: Callable[[], Store], clock: Clock, watch: Callable[[Store], Watch], web: HttpReceiver
) -> None:
    one, other = watch(store), watch(connect())
    one.round()
    one.leave()
    odd(store, 0, [("192.0.2.1", MIDNIGHT - MINUTE, "/a")])
    assert other.round().found == 1
    other.leave()
    assert one.round().changed == 0
    assert len(web.bodies) == 1


def test_events_hushed_meanwhile_make_no_incident(
    store: Store, clock: Clock, watch: Callable[[Store], Watch], web: HttpReceiver
) -> None:
    odd(store, 0, [("192.0.2.1", MIDNIGHT - MINUTE, "/a"), ("192.0.2.2", MIDNIGHT - MINUTE, "/b")])
    one = watch(store)
    assert one.round().found == 2
    stored = read(store, EventQuery(clients=("192.0.2.1",)), with_version=True)
    hushed = stored.select("_id", "@timestamp", "_version", pl.lit(False).alias("anomaly.is_anomaly"))
    assert store.update_events(hushed) == 1
    store.refresh()
    assert one.round().closed == 1
    assert {d["title"]: d["status"] for d in documents(store)} == {
        "withdrawn: 192.0.2.1": "withdrawn",
        "192.0.2.2: 1 odd request for /b": "open",
    }


def test_a_client_that_was_forgotten_is_not_brought_back_by_a_watch_that_runs(
    store: Store, clock: Clock, watch: Callable[[Store], Watch], web: HttpReceiver
) -> None:
    several = [(f"192.0.2.{n}", MIDNIGHT - MINUTE, "/same") for n in range(3)]
    odd(store, 0, [("198.51.100.77", MIDNIGHT - MINUTE, "/a"), ("198.51.100.77", MIDNIGHT - MINUTE, "/same"), *several])
    odd(store, 9, [("203.0.113.9", MIDNIGHT - 90 * MINUTE, "/same")])
    one = watch(store)
    one.round()
    forget(store, ["198.51.100.77", "203.0.113.9"])
    clock.time += 3 * HOUR
    one.round()
    text = str(store.list_documents("incidents"))
    assert "198.51.100.77" not in text
    assert "203.0.113.9" not in text
    assert [document["status"] for document in documents(store)] == ["closed"]


def test_after_a_pause_everything_since_the_last_round_is_looked_at(
    store: Store, clock: Clock, watch: Callable[..., Watch], web: HttpReceiver
) -> None:
    one = watch(store, lookback_hours=1)
    one.round()
    odd(store, 0, [("192.0.2.1", MIDNIGHT + 5 * HOUR, "/a"), ("192.0.2.1", MIDNIGHT + 40 * HOUR, "/a")])
    clock.time += 41 * HOUR
    assert one.round().found == 2
    assert [body["incident"]["last_seen"][:13] for body in web.bodies] == ["2024-03-02T16"], "the other is long over"


def test_what_ended_long_ago_is_deleted(store: Store, clock: Clock, watch: Callable[..., Watch]) -> None:
    odd(store, 0, [("192.0.2.1", MIDNIGHT - MINUTE, "/a")])
    one = watch(store, keep_days=2)
    one.round()
    clock.time += 47 * HOUR
    one.round()
    assert [document["status"] for document in documents(store)] == ["closed"]
    clock.time += 47 * HOUR
    one.round(MIDNIGHT - 1_000 * HOUR)
    assert len(documents(store)) == 1
    clock.time += 2 * HOUR
    one.round()
    assert documents(store) == []
    assert (store.get_document("runs", NAME) or {})["until"] == "2024-03-05T00:00:00.000Z"


def test_what_is_looked_for_long_ago_stays_for_as_long_as_what_is_found_today(
    store: Store, clock: Clock, watch: Callable[..., Watch], web: HttpReceiver
) -> None:
    odd(store, 0, [("192.0.2.1", MIDNIGHT - 1_000 * HOUR, "/a")])
    one = watch(store, keep_days=2)
    assert one.round().found == 0
    assert one.round(MIDNIGHT - 1_001 * HOUR).found == 1
    assert one.round().changed == 0
    assert [document["status"] for document in documents(store)] == ["closed"]
    assert web.bodies == []
