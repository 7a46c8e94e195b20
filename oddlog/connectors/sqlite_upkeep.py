"""Deleting days of events from the SQLite store, and what it leaves. Transactions are `sqlite.py`'s."""

from __future__ import annotations

import datetime as dt
import sqlite3

_1970 = dt.date(1970, 1, 1)
_DAY_MS = 86_400_000


def days_before(connection: sqlite3.Connection, day: dt.date) -> dict[dt.date, int | None]:
    """The UTC days before `day` that have events, oldest first, and how many."""
    # Division that rounds down, also before 1970, where SQLite's own rounds towards zero.
    number = f'("@timestamp" - ((("@timestamp" % {_DAY_MS}) + {_DAY_MS}) % {_DAY_MS})) / {_DAY_MS}'
    rows = connection.execute(
        f'SELECT {number} AS day, count(*) FROM events WHERE "@timestamp" < ? GROUP BY day ORDER BY day',
        (_begins(day),),
    )
    return {_1970 + dt.timedelta(days=int(number)): int(count) for number, count in rows}


def delete_day(connection: sqlite3.Connection, day: dt.date) -> None:
    """Remove the events of one UTC day."""
    begin = _begins(day)
    connection.execute('DELETE FROM events WHERE "@timestamp" >= ? AND "@timestamp" < ?', (begin, begin + _DAY_MS))


def rewrite(connection: sqlite3.Connection) -> None:
    """Leave no byte of what was deleted: neither in free pages of the file, nor in its log. Outside a transaction."""
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _begins(day: dt.date) -> int:
    return (day - _1970).days * _DAY_MS
