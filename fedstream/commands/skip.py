"""Pass over records that no job can read, such as those of a batch that a disk has damaged; all else is kept.

    make skip S=fog-1 AT=sensor-data-node-1:0:182345            stops the job, does this, and starts it again
    make skip S=fog-1 AT=sensor-data-node-1:0:182345-182399     ... a batch of several records

The error with which the job has ended says where they stand. Each of them gets a dead letter, and the job counts all
others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from fedstream.broker import kafka
from fedstream.broker.position import now_ms
from fedstream.commands.reset import expect_stopped, folder_name
from fedstream.errors import StackError
from fedstream.messages.dead_letters import dead_letter
from fedstream.messages.topics import DEAD_LETTER
from fedstream.settings import Settings
from fedstream.spark.skips import add_skip, parse_place, unread

MOST = 10_000  # records at once
REASON = "skipped by hand: no job could read it"


def main(job: str, text: str, environ: Mapping[str, str]) -> None:
    """Have a stopped job pass over the records at a place.

    Raises:
        StackError: the job does not stand there, or it runs.
    """
    skip, settings = parse_place(text), Settings.from_env(environ)
    if skip.last >= skip.first + MOST:
        raise StackError(f"AT is {text!r}; expected at most {MOST} records, as the job's error says: make logs S={job}")
    folder = settings.checkpoint_dir / folder_name(job, int(environ.get("NODES_PER_DRIVER", "1")))
    if job != "cloud" and not job.startswith("fog-"):
        raise StackError(
            f"S is {job!r}; expected fog-N or cloud. Others keep no counts: make reset S={job} FROM=OFFSET"
        )
    expect_stopped(folder)
    queries = {path.parent: unread(path.parent) for path in folder.rglob("spark")}
    waiting = sorted({place for places in queries.values() for place in places})
    ends = (skip.first, skip.last)
    if not any(all(each.holds(skip.topic, skip.partition, end) for end in ends) for each in waiting):
        places = list(map(str, waiting))
        stands = f"it stands at {', '.join(places)}" if places else "it has counted all that it has planned to read"
        raise StackError(f"{job} does not wait for {skip}: {stands}. Nothing was done")
    letters = [
        dead_letter(None, REASON, (skip.topic, skip.partition, offset), now_ms(), job)
        for offset in range(skip.first, skip.last + 1)
    ]
    kafka.connect_publisher(settings)(*((DEAD_LETTER, None, letter) for letter in letters))
    for query in queries:
        add_skip(query, skip)
    print(
        f"{job}: passes over {skip} ({len(letters)} in dead-letter), and ends once more before it if others stand there"
    )


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], os.environ)
    except StackError as error:
        sys.exit(f"Error: {error.message}")
