"""Features of events: under a baseline in row order (serving), and of the fitted period itself (training)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.events.record import Partition
from oddlog.features.baseline import Baseline, Floats
from oddlog.features.clients import MAX_CLIENTS, ClientState
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.features.fitting import fit_baseline
from oddlog.features.lookup import Lookup
from oddlog.features.signals import Signals

Matrix = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

SLICE_ROWS = 65_536
"""Rows of a longer frame that are computed at a time: what that takes beside the result stays bounded."""


@dataclass(frozen=True, slots=True)
class FitData:
    """What a detector is fitted on, row by row in event order.

    `features` float32 [n, d], computed with a line's own unit of counting left out;
    `weights` float64 [n], 1 / (lines of its client-hour);
    `behaviour` int64 [n], number of the line's behaviour; `names` of the d columns.
    """

    features: Matrix
    weights: npt.NDArray[np.float64]
    behaviour: npt.NDArray[np.int64]
    names: tuple[str, ...]


class FeatureComputer:
    """Features = f(event, baseline, client state).

    The numbers of an event depend on the baseline and on the events before it in its partition; not on how
    the rows were cut into batches, nor on other partitions. Of a partition at most `max_clients` are kept: see
    ClientState.
    """

    def __init__(self, baseline: Baseline, *, max_clients: int = MAX_CLIENTS) -> None:
        self.baseline = baseline
        self._max_clients = max_clients
        self._lookup = Lookup(baseline)
        self._clients: dict[Partition, ClientState] = {}

    @property
    def clients(self) -> int:
        """Clients in memory, over all partitions."""
        return sum(len(state) for state in self._clients.values())

    def compute(self, events: pl.DataFrame) -> Matrix:
        """Features float32 [n, 16] (columns: FEATURE_NAMES) of `events` (columns of EVENT_SCHEMA).

        Rows come in record order, and advance the client state.
        """
        if len(events) > SLICE_ROWS:
            return np.concatenate([self.compute(part) for part in events.iter_slices(SLICE_ROWS)])
        signals = self._lookup.signals(events)
        for partition, _ in (parts := _partitions(events)):
            if partition not in self._clients:
                self._clients[partition] = ClientState(self._max_clients)
        return _matrix(signals, _client_means(self._clients, parts, events, signals, self.baseline.client_prior))

    def drop(self, partition: Partition) -> None:
        """Forget the clients of a partition: it was lost, or is replayed from elsewhere."""
        self._clients.pop(partition, None)

    def client_table(self, partition: Partition) -> pl.DataFrame:
        """The client state of a partition, a row a client; empty where there is none. Later events leave it alone."""
        return pl.DataFrame(self._clients.get(partition, ClientState()).table())

    def take_client_table(self, partition: Partition, table: pl.DataFrame) -> None:
        """Go on from a state that `client_table` gave, under the same baseline."""
        columns = {
            name: table[name].to_list() if name == "client" else table[name].to_numpy() for name in table.columns
        }
        self._clients[partition] = ClientState.of_table(columns, self._max_clients)


def fit_features(events: pl.DataFrame) -> tuple[Baseline, FitData]:
    """Fit a baseline on events in record order, and give their features with every line's own unit left out.

    Raises UsageError on no events."""
    fitted = fit_baseline(events)
    parts = _partitions(events)
    states = {partition: ClientState() for partition, _ in parts}
    means = _client_means(states, parts, events, fitted.signals, fitted.baseline.client_prior)
    return fitted.baseline, FitData(
        features=_matrix(fitted.signals, means),
        weights=1.0 / np.bincount(fitted.client_hour)[fitted.client_hour],
        behaviour=fitted.behaviour,
        names=FEATURE_NAMES,
    )


def _matrix(signals: Signals, means: Floats) -> Matrix:
    # Filled in place: a second matrix of doubles would be the most that fitting on millions of rows has in memory.
    matrix = np.empty((len(means), len(FEATURE_NAMES)), dtype=np.float32)
    matrix[:, : means.shape[1]] = means
    matrix[:, means.shape[1] :] = signals.event
    return matrix


def _client_means(
    states: Mapping[Partition, ClientState],
    parts: Sequence[tuple[Partition, Rows]],
    events: pl.DataFrame,
    signals: Signals,
    prior: Floats,
) -> Floats:
    """Client means [n, 10], partition by partition."""
    seconds = events["@timestamp"].dt.epoch("ms").to_numpy() / 1_000.0
    clients = events["source.address"].to_list()
    if len(parts) == 1:
        return states[parts[0][0]].advance(clients, seconds, signals.client, prior)
    means = np.empty((len(events), len(FEATURE_NAMES) - signals.event.shape[1]))
    for partition, rows in parts:
        chosen = [clients[row] for row in rows.tolist()]
        means[rows] = states[partition].advance(chosen, seconds[rows], signals.client[rows], prior)
    return means


def _partitions(events: pl.DataFrame) -> list[tuple[Partition, Rows]]:
    """Row numbers of every partition in a frame, in row order."""
    columns = ["oddlog.position.epoch", "oddlog.position.topic", "oddlog.position.partition"]
    if all(events[name].n_unique() == 1 for name in columns):
        return [(Partition(*events.select(columns).row(0)), np.arange(events.height))]
    groups = events.select(columns).with_row_index("row").group_by(columns, maintain_order=True).agg(pl.col("row"))
    return [
        (Partition(epoch, topic, number), rows.to_numpy().astype(np.int64))
        for epoch, topic, number, rows in zip(*(groups[c] for c in [*columns, "row"]), strict=True)
    ]
