"""Makes an older version of a run the current one: what `fedstream models rollback` and the board do."""

from __future__ import annotations

import time

from fedstream.broker import kafka
from fedstream.broker.position import now_ms
from fedstream.commands import registry
from fedstream.errors import StackError
from fedstream.messages.rounds import GlobalModel, Rollback, check_size
from fedstream.messages.topics import GLOBAL_MODEL, ROUND_CONTROL
from fedstream.rounds import runs
from fedstream.settings import Settings


def roll_back(settings: Settings, version: str, metric: str = "f1", run_id: str | None = None) -> GlobalModel:
    """Send the command, and return the model with which the cloud has opened a round then.

    Args:
        settings: where the topics are, and how long the cloud may take.
        version: a number, `best` or `current`.
        metric: by which `best` is the best.
        run_id: of which run; the newest one by default.

    Raises:
        StackError: there is no such version, or the cloud has not obeyed within `wait_timeout_seconds`.
    """
    run = registry.load_run(settings, run_id)
    message = registry.pick_version(run, version, metric)
    command = Rollback(run.run_id, now_ms(), message, run.current)
    check_size(command, "the command", settings.max_update_bytes)
    read = kafka.follow_topic(settings, GLOBAL_MODEL, last=0)  # what was there before the command is no answer to it
    kafka.connect_publisher(settings)((ROUND_CONTROL, run.run_id, command))
    deadline = time.monotonic() + settings.wait_timeout_seconds
    while (left := deadline - time.monotonic()) > 0:
        for model in runs.read_models(read(min(left, 1.0))):
            is_new = model.round not in run.rounds  # that of an earlier rollback may be said again
            if is_new and model.run_id == run.run_id and model.restored_from == message.version:
                return model
    msg = (
        f"no model with restored_from {message.version} came on topic {GLOBAL_MODEL} within "
        f"{settings.wait_timeout_seconds:g} s; is the cloud running (make ps)? What it cannot use is in dead-letter"
    )
    raise StackError(msg)
