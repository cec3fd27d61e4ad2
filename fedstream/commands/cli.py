"""fedstream: federated learning on streams, from the command line.

Every setting of the stack (see `fedstream.settings`) is also read from the environment variable of its name.

Examples:
    fedstream simulate --nodes 100 --attackers 20 --strategy FedMedian
    fedstream watch
    fedstream models list
    fedstream COMMAND --help
"""

from __future__ import annotations

import click

from fedstream.commands.alerts import alerts
from fedstream.commands.curves import plot
from fedstream.commands.history import history
from fedstream.commands.jobs import show_jobs
from fedstream.commands.latency import latency
from fedstream.commands.models import models
from fedstream.commands.replay import replay
from fedstream.commands.report import report
from fedstream.commands.simulate import simulate
from fedstream.commands.verify import verify
from fedstream.commands.watch import watch
from fedstream.terminal import Group


@click.group(cls=Group, help=__doc__)
def main() -> None:
    """Run a command."""


for command in (simulate, models, watch, history, verify, replay, plot, report, alerts, latency, show_jobs):
    main.add_command(command)


if __name__ == "__main__":
    main()
