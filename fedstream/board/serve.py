"""The board: http://localhost:8090 shows what flows, what is learned and what is broken; /metrics is for Prometheus.

It reads topics and the files in which drivers say how far they are. It changes nothing; with BOARD_ACTIONS=on its page
can roll back to an older version of the global model.

Examples:
    python -m fedstream.board.serve                    started by make up
    python -m fedstream.board.serve --port 8091        beside it
"""

from __future__ import annotations

import os
from functools import partial

import click
import uvicorn

from fedstream.board.actions import Actions
from fedstream.board.app import Newest, host_names, make_app
from fedstream.board.archive import FollowOne
from fedstream.board.feed import Feed
from fedstream.board.targets import targets
from fedstream.commands.rollback import roll_back
from fedstream.messages.rounds import GlobalModel
from fedstream.settings import Settings
from fedstream.terminal import Command

MOST_CONNECTIONS = 100


@click.command(cls=Command, help=__doc__)
@click.option("--host", envvar="LISTEN_ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", envvar="BOARD_PORT", default=8090, show_default=True, type=click.IntRange(1, 65_535))
@click.option("--actions", envvar="BOARD_ACTIONS", default="off", show_default=True, type=click.Choice(["off", "on"]))
def main(host: str, port: int, actions: str) -> None:
    """Serve until the process is ended."""
    settings = Settings.from_env(os.environ)
    newest = Newest(settings)
    Feed(settings, newest.publish).start()
    print(f"the board listens on http://{host}:{port}", flush=True)

    def back(run_id: str, version: int) -> GlobalModel:
        return roll_back(settings, str(version), run_id=run_id)

    app = make_app(
        newest,
        host_names(os.environ.get("PUBLIC_HOST", "")),
        os.environ.get("STACK", "local"),
        targets=partial(targets, env=os.environ),
        follow=FollowOne(settings, lambda: newest.snapshot),
        actions=Actions(back) if actions == "on" else None,
    )
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        lifespan="off",
        ws="none",
        access_log=False,
        server_header=False,
        date_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
