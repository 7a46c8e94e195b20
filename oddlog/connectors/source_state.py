"""Where a source stands, asked without joining its group or taking its place: for `oddlog doctor`.

Kafka's part is `kafka_state.py`, a file's is here, for it is small.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from oddlog.errors import SourceEpochError, SourceError
from oddlog.events.record import Partition

if TYPE_CHECKING:
    from oddlog.settings import SourceSettings


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition: its first kept offset, the offset after its last record, and what the group has committed."""

    partition: Partition
    begin: int
    end: int
    committed: int | None
    problem: SourceEpochError | None = None
    """Why a consumer would stop here: the committed position does not fit."""


def source_state(settings: SourceSettings) -> list[PartitionState]:
    """Every partition of the source; none where the topic, or the file, is not there.

    Raises UsageError for a wrong URL, SourceError where the source cannot be asked."""
    if urlsplit(settings.url).scheme == "kafka":
        from oddlog.connectors.kafka_state import topic_state

        return topic_state(settings)
    return _file_state(settings)


def _file_state(settings: SourceSettings) -> list[PartitionState]:
    from oddlog.connectors.file_place import remembered
    from oddlog.connectors.files import path_of

    path = path_of(settings.url)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read: {error.strerror}",
            expected="a log file that this user may read",
            mend=f"give this user the right to read it, for example: setfacl -m u:$USER:r '{path}'",
        ) from error
    generations = remembered(settings.state_dir, settings.group, path)
    if not generations:
        return [PartitionState(Partition("", path.name, 0), 0, size, None)]
    newest = generations[-1]
    return [PartitionState(Partition(newest.name, path.name, 0), 0, size, newest.committed)]
