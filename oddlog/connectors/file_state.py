"""Where a log file and its group stand, asked without taking the group's place. Reading is in `files.py`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from oddlog.connectors.file_place import remembered, topic_of
from oddlog.connectors.files import path_of
from oddlog.connectors.source import PartitionState
from oddlog.errors import SourceError
from oddlog.events.record import Partition

if TYPE_CHECKING:
    from oddlog.settings import SourceSettings


def file_state(settings: SourceSettings) -> list[PartitionState]:
    """The newest generation of the file, in a list; none where the file is not there.

    Raises UsageError for a wrong URL, SourceError where the file cannot be read."""
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
        return [PartitionState(Partition("", topic_of(path), 0), 0, size, None)]
    newest = generations[-1]
    return [PartitionState(Partition(newest.name, topic_of(path), 0), 0, size, newest.committed)]
