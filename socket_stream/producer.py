"""Socket producer: sends a random number from 1 to 100 a second to every client that connects.

Examples:
    python socket_stream/producer.py
    python socket_stream/producer.py --port 9999 --rate 1000 --seed 7
"""

from __future__ import annotations

import random
import signal
import socketserver
import threading
from collections.abc import Iterator

import click

from fedstream.terminal import Command


def random_numbers(seed: int | None) -> Iterator[int]:
    """Yield numbers from 1 to 100, uniformly."""
    source = random.Random(seed)
    while True:
        yield source.randint(1, 100)


class NumberServer(socketserver.ThreadingTCPServer):
    """Serves each client in a thread of its own, so that any number of them read at once."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], rate: float, seed: int | None) -> None:
        """Listen on an address; `rate` is in numbers per second and client."""
        super().__init__(address, NumberHandler)
        self.rate = rate
        self.seed = seed
        self.stopping = threading.Event()


class NumberHandler(socketserver.StreamRequestHandler):
    """Sends numbers, one a line, until the client leaves or the server stops."""

    server: NumberServer
    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Send numbers at the server's rate."""
        print(f"Connecté à {self.client_address}", flush=True)
        try:
            for number in random_numbers(self.server.seed):
                self.wfile.write(f"{number}\n".encode())
                print(f"Envoyé: {number}", flush=True)
                if self.server.stopping.wait(1 / self.server.rate):
                    return
        except (ConnectionResetError, BrokenPipeError):
            print(f"Connexion perdue avec {self.client_address}", flush=True)


@click.command(cls=Command, help=__doc__)
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=9999, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option(
    "--rate",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 10_000, min_open=True),
    help="Numbers per second and client.",
)
@click.option("--seed", type=int, help="Send each client the same numbers in each run.")
def main(host: str, port: int, rate: float, seed: int | None) -> None:
    """Serve numbers until SIGTERM or Ctrl-C."""
    try:
        server = NumberServer((host, port), rate, seed)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {host}:{port}: {error.strerror}. Choose another --port."
        ) from error

    def stop(*_: object) -> None:
        server.stopping.set()
        threading.Thread(target=server.shutdown).start()  # it would wait for this very thread

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with server:
        print(f"Producteur en écoute sur {host}:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
