"""The socket producer: numbers for any number of clients, and an orderly end."""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

SECONDS = 20.0  # longest wait for a number


@pytest.fixture(scope="module")
def producer(script):
    """Return the job script."""
    return script("socket_stream/producer.py")


@pytest.fixture
def serve(producer):
    """Return a function that starts a server on a free port: `serve(seed=7)`."""
    with contextlib.ExitStack() as stack:

        def start(rate: float = 1000.0, seed: int | None = None):
            server = stack.enter_context(producer.NumberServer(("127.0.0.1", 0), rate, seed))
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
            stack.callback(server.shutdown)
            stack.callback(server.stopping.set)
            return server

        yield start


@contextlib.contextmanager
def client_of(port: int) -> Iterator[Iterator[str]]:
    """Connect to a port and give the lines that come."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection, connection.makefile() as lines:
        yield lines


def take(lines: Iterator[str], count: int) -> list[int]:
    """Return the next numbers."""
    return [int(line) for line in itertools.islice(lines, count)]


def test_numbers_are_uniform_from_1_to_100(producer):
    numbers = list(itertools.islice(producer.random_numbers(7), 10_000))
    assert set(numbers) == set(range(1, 101))
    # The mean is 50.5, its standard error sqrt((100^2 - 1) / 12 / 10,000) = 0.29, five of which are allowed.
    assert sum(numbers) / 10_000 == pytest.approx(50.5, abs=1.45)


def test_a_seed_gives_the_same_numbers_and_another_one_others(producer):
    first, again, other = (list(itertools.islice(producer.random_numbers(seed), 50)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_a_client_gets_one_number_a_line(serve):
    with client_of(serve().server_address[1]) as lines:
        received = list(itertools.islice(lines, 20))
    assert all(re.fullmatch(r"[1-9]\d{0,2}\n", line) for line in received)
    assert all(1 <= int(line) <= 100 for line in received)


def test_two_clients_at_once_both_get_numbers(serve):
    port = serve().server_address[1]
    with client_of(port) as first, client_of(port) as second:
        # Turn by turn: a server that serves one client after the other would never reach the second.
        for _ in range(3):
            assert len(take(first, 5)) == len(take(second, 5)) == 5


def test_with_a_seed_every_client_gets_the_same_numbers(serve, producer):
    port = serve(seed=7).server_address[1]
    with client_of(port) as first, client_of(port) as second:
        assert take(first, 30) == take(second, 30) == list(itertools.islice(producer.random_numbers(7), 30))


def test_a_client_that_leaves_does_not_stop_the_others(serve, capsys):
    port = serve().server_address[1]
    with client_of(port) as staying:
        with client_of(port) as leaving:
            take(leaving, 3)
        # The server notices with one of the next numbers; the other client sees hundreds more, and so does a new one.
        assert len(take(staying, 300)) == 300
        with client_of(port) as late:
            assert len(take(late, 3)) == 3
    assert capsys.readouterr().out.count("Connecté à ('127.0.0.1', ") == 3


def test_stopping_ends_the_numbers_of_a_client_that_waits_for_the_next(serve):
    server = serve(rate=0.001)  # the next one is due in a quarter of an hour
    with client_of(server.server_address[1]) as lines:
        take(lines, 1)
        server.stopping.set()
        assert next(lines, "end") == "end"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_prints_what_the_report_shows_and_ends_on_a_signal_with_code_0(program, number):
    with program("socket_stream/producer.py", "--port", "0", "--rate", "100", "--seed", "7") as process:
        listening = process.stdout.readline()
        port = re.fullmatch(r"Producteur en écoute sur 0\.0\.0\.0:(\d+)\n", listening)
        assert port, listening + process.stderr.read()
        with client_of(int(port[1])) as lines:
            numbers = take(lines, 3)
            process.send_signal(number)
            numbers += [int(line) for line in lines]  # up to the end of the connection
        out, err = process.communicate()
    assert process.returncode == 0
    assert err == ""
    connected, *sent = out.splitlines()
    assert re.fullmatch(r"Connecté à \('127\.0\.0\.1', \d+\)", connected)
    assert sent == [f"Envoyé: {number}" for number in numbers]


def test_a_client_that_reads_nothing_does_not_keep_the_program_from_ending(program):
    with program("socket_stream/producer.py", "--port", "0", "--host", "127.0.0.1", "--rate", "0.001") as process:
        port = int(process.stdout.readline().rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS):
            assert process.stdout.readline().startswith("Connecté à ")
            process.send_signal(signal.SIGTERM)
            process.communicate()
    assert process.returncode == 0


def test_a_port_in_use_is_named_with_what_to_do(program):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with program("socket_stream/producer.py", "--host", "127.0.0.1", "--port", str(port)) as process:
            _, err = process.communicate()
    assert process.returncode == 1
    assert err == f"Error: cannot listen on 127.0.0.1:{port}: Address already in use. Choose another --port.\n"


def test_help_shows_each_example_on_a_line_of_its_own(program, producer):
    with program("socket_stream/producer.py", "--help") as process:
        out, _ = process.communicate()
    assert process.returncode == 0
    examples = [line.strip() for line in producer.__doc__.splitlines() if "python socket_stream/" in line]
    assert len(examples) == 2
    assert set(examples) <= {line.strip() for line in out.splitlines()}


@pytest.mark.parametrize(
    "arguments",
    [("--port", "65536"), ("--port", "x"), ("--rate", "0"), ("--rate", "-1"), ("--seed", "x"), ("--speed",)],
)
def test_a_bad_option_ends_the_program_with_code_2_and_is_named(program, arguments):
    with program("socket_stream/producer.py", *arguments) as process:
        _, err = process.communicate()
    assert process.returncode == 2
    assert arguments[0] in err
