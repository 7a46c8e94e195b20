"""Requests in codes: the columns that visitors of every sort fill, before they become text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oddlog.simulation.streams import Ints

METHODS = ("GET", "POST", "HEAD")


@dataclass(slots=True)
class Hits:
    """Requests in codes, one array a column, all of one length. `unit` is what belongs together: a session."""

    time: Ints  # UTC milliseconds since 1970
    unit: Ints
    target: Ints  # index into the site's table
    method: Ints  # index into METHODS
    status: Ints
    size: Ints
    referrer: Ints  # -1 none, >= 0 a page of the site, <= -2 the external place -2 - n
    fixed: Ints  # 1: the address stays what it is whatever a release moves

    def __len__(self) -> int:
        return len(self.time)

    def pick(self, which: Ints) -> Hits:
        """These rows."""
        return Hits(**{name: getattr(self, name)[which] for name in Hits.__dataclass_fields__})

    @staticmethod
    def joined(parts: list[Hits]) -> Hits:
        """Rows of all parts, one after another."""
        return Hits(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in Hits.__dataclass_fields__}
        )


def hits(**columns: Ints | int) -> Hits:
    """Hits from columns of which some are one value for all rows."""
    rows = np.asarray(columns["time"]).shape[0]
    full = {"fixed": 0, "method": 0, "referrer": -1, **columns}
    return Hits(
        **{
            name: np.asarray(np.broadcast_to(np.asarray(value, dtype=np.int64), (rows,)))
            for name, value in full.items()
        }
    )
