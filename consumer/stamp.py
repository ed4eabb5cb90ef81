"""stamp_file: the default task, which appends a timestamp to a job file."""

import os
from pathlib import Path

import persistq
from persistq import jobfiles
from persistq.clock import SystemClock


def register(root: Path) -> None:
    """Register the task for the job files in ``root``."""

    @persistq.task
    def stamp_file(item: str) -> None:
        """Append the time and the job's id to the file named by ``item``, once however often it is delivered.

        The file has to be in ``root``: whoever may enqueue must not be able to change other files.

        Raises:
            PermanentError: the item is no file there.
        """
        job = persistq.current_job()
        mark = f"job={job.id or job.unique_key}" if job else f"pid={os.getpid()}"
        try:
            jobfiles.append_line(root, item, f"{SystemClock().now().isoformat()} {mark}", mark)
        except jobfiles.NotAJobFile as error:
            raise persistq.PermanentError(f"{item!r:.200} is no job file in {root}: {error}") from error
