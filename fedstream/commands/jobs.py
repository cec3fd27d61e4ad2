"""The command that shows how far each job is, also one that was started by hand."""

from __future__ import annotations

import json
import os
import time

import click

from fedstream.commands.terminal import json_option
from fedstream.errors import StackError
from fedstream.settings import Settings
from fedstream.stack import jobs as progress
from fedstream.tables import make_console
from fedstream.terminal import Command


@click.command("jobs", cls=Command)
@json_option
def show_jobs(is_json: bool) -> None:
    """Show how far each job is: its last micro-batch, the records that wait, and whether it is well.

    It tells what each driver has said last, also one that was started by hand or on another machine with the same
    CHECKPOINT_DIR. How often the runner has started a job again is in make ps. Exit code 1 if one is not well.

    Examples:
        fedstream jobs
        fedstream jobs --json | jq .trouble
    """
    folder = Settings.from_env(os.environ).checkpoint_dir
    found = [progress.read_progress(folder, path.stem) for path in sorted((folder / "running").glob("*.json"))]
    drivers = [each for each in found if each]
    if not drivers:
        raise StackError(f"no job has said anything in {folder}/running yet; start one: make run-fog, or make ps")
    troubles = {each["job"]: progress.trouble_of(each, time.time()) for each in drivers}
    if is_json:
        click.echo(json.dumps([each | {"trouble": troubles[each["job"]]} for each in drivers]))
    else:
        click.echo(progress.table(drivers))
        for job, trouble in troubles.items():
            if trouble:
                make_console().print(f"{job}: {trouble}")
    if any(troubles.values()):
        raise SystemExit(1)
