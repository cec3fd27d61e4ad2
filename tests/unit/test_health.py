"""Is a part ready? Asked of real sockets and a real web server on this machine."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedstream.stack import health
from fedstream.stack.health import NotReadyError, StartingError


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    """Serve in a thread and give the port."""
    with server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def web_pages(pages: dict[str, object]) -> contextlib.AbstractContextManager[int]:
    """Serve JSON pages by path; the dictionary may change meanwhile."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in pages else 404)
            self.end_headers()
            page = pages.get(self.path, "")
            self.wfile.write(page if isinstance(page, bytes) else json.dumps(page).encode())

        def log_message(self, *_: object) -> None:
            pass

    return serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page))


def answering(answer: Callable[[bytes], bytes]) -> contextlib.AbstractContextManager[int]:
    """Serve a protocol of one question and one answer."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(answer(self.request.recv(1000)))

    return serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer))


def test_a_proxy_of_the_shell_is_not_asked_for_the_stacks_own_pages(monkeypatch, closed_port):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    workers = [{"id": "1", "state": "ALIVE"}, {"id": "2", "state": "ALIVE"}]
    with web_pages({"/json/": {"workers": workers}}) as port:
        health.check("spark", spark(port))


def spark(port: int) -> dict[str, str]:
    """Return the variables that tell where the master is: here at the port of its pages, too."""
    return {"SPARK_MASTER_HOST": "127.0.0.1", "SPARK_MASTER_UI_PORT": str(port), "SPARK_MASTER_PORT": str(port)}


def workers(*states: str) -> dict[str, object]:
    """Return what the master's JSON says of workers in these states."""
    return {"workers": [{"id": f"worker-{number}", "state": state} for number, state in enumerate(states)]}


@pytest.mark.parametrize("states", [("ALIVE", "ALIVE"), ("DEAD", "ALIVE", "ALIVE"), ("ALIVE",) * 3])
def test_spark_is_ready_when_two_workers_are_alive(states):
    with web_pages({"/json/": workers(*states)}) as port:
        health.check("spark", spark(port))


@pytest.mark.parametrize(
    ("states", "alive"), [((), 0), (("ALIVE",), 1), (("ALIVE", "DEAD"), 1), (("DEAD", "UNKNOWN"), 0)]
)
def test_spark_is_not_ready_with_fewer(states, alive):
    with (
        web_pages({"/json/": workers(*states)}) as port,
        pytest.raises(NotReadyError, match=f"{alive} of 2 workers ALIVE"),
    ):
        health.check("spark", spark(port))


def test_a_master_that_is_not_there_or_talks_nonsense_is_named_with_its_address(closed_port):
    with pytest.raises(NotReadyError, match=f"http://127.0.0.1:{closed_port}/json/: .*refused"):
        health.check("spark", spark(closed_port))
    with web_pages({"/json/": b"<html>"}) as port, pytest.raises(NotReadyError, match=f"http://127.0.0.1:{port}/json/"):
        health.check("spark", spark(port))
    with web_pages({}) as port, pytest.raises(NotReadyError, match="404"):
        health.check("spark", spark(port))


def test_a_master_whose_page_answers_while_nobody_can_talk_to_it_is_not_ready(closed_port):
    with (
        web_pages({"/json/": workers("ALIVE", "ALIVE")}) as port,
        pytest.raises(
            NotReadyError, match=f"spark://127.0.0.1:{closed_port}, where workers and drivers talk to .*refus"
        ),
    ):
        health.check("spark", spark(port) | {"SPARK_MASTER_PORT": str(closed_port)})


def test_a_worker_is_ready_when_its_page_answers(closed_port):
    with web_pages({"/json/": {"id": "worker-1"}}) as port:
        health.check("spark-worker-1", {"SPARK_WORKER_1_UI_PORT": str(port)})
    with pytest.raises(NotReadyError, match=f"http://localhost:{closed_port}/json/: .*refused"):
        health.check("spark-worker-2", {"SPARK_WORKER_2_UI_PORT": str(closed_port)})


def test_a_container_is_asked_by_its_port_on_this_host(closed_port):
    host = {"BIND_ADDRESS": "0.0.0.0"}
    ports = {"spark-worker-1": "SPARK_WORKER_1_UI_PORT", "board": "BOARD_PORT", "cloud": "CLOUD_UI_PORT"}
    with web_pages({"/": {}}) as port:
        for part, variable in ports.items():
            health.check_from_outside(part, host | {variable: str(port)})
            with pytest.raises(NotReadyError, match=f"http://localhost:{closed_port}/: .*refused"):
                health.check_from_outside(part, host | {variable: str(closed_port)})
        health.check_from_outside("fog-3", host | {"FOG_UI_PORT_BASE": str(port - 3)})
    health.check_from_outside("topics", host)  # which has ended, and has none


def driver_pages(*executors: dict[str, object]) -> dict[str, object]:
    """Return what a driver's pages say of its executors."""
    applications = "/api/v1/applications"
    return {applications: [{"id": "app-1"}], f"{applications}/app-1/allexecutors": list(executors)}


DRIVER = {"id": "driver", "isActive": True}


def test_a_job_is_ready_when_its_driver_has_an_executor():
    with web_pages(driver_pages(DRIVER, {"id": "0", "isActive": True})) as port:
        health.check("cloud", {"CLOUD_UI_PORT": str(port)})
        health.check("squares", {"SQUARES_UI_PORT": str(port)})


@pytest.mark.parametrize("executors", [[], [DRIVER]])
def test_a_job_without_an_executor_is_starting_and_the_likely_cause_is_named(executors):
    with (
        web_pages(driver_pages(*executors)) as port,
        pytest.raises(StartingError, match=f"no executor yet at http://localhost:{port}.*free cores or memory"),
    ):
        health.check("cloud", {"CLOUD_UI_PORT": str(port)})


def test_a_job_that_has_lost_its_executors_is_not_ready_however_short_it_runs():
    with (
        web_pages(driver_pages(DRIVER, {"id": "0", "isActive": False})) as port,
        pytest.raises(NotReadyError, match=f"no executor any more at http://localhost:{port}") as raised,
    ):
        health.check("cloud", {"CLOUD_UI_PORT": str(port)})
    assert not isinstance(raised.value, StartingError)


def said(folder: Path, at: float, moved_at: float) -> dict[str, str]:
    """Have the cloud's driver say how far it is, and return where."""
    query = {"name": "cloud", "behind": 7, "moved_at": moved_at, "may_wait": False, "micro_batch": 1, "finished_at": at}
    (folder / "running").mkdir()
    progress = {"job": "cloud", "at": at, "pause_seconds": 0.0, "queries": [query]}
    (folder / "running" / "cloud.json").write_text(json.dumps(progress))
    return {"CHECKPOINT_DIR": str(folder)}


def test_a_driver_that_is_paused_is_not_ready_though_its_page_is_as_silent_as_that_of_one_that_starts(
    tmp_path, closed_port
):
    env = said(tmp_path, time.time() - 25, time.time() - 25) | {"CLOUD_UI_PORT": str(closed_port)}
    with pytest.raises(NotReadyError, match=r"its driver has said nothing for 2[5-9] s: it is paused") as raised:
        health.check("cloud", env)
    assert not isinstance(raised.value, StartingError)


def test_a_query_that_waits_for_its_first_executor_is_starting(tmp_path):
    env = said(tmp_path, time.time(), time.time() - 60)
    with web_pages(driver_pages(DRIVER)) as port, pytest.raises(StartingError, match="no executor yet"):
        health.check("cloud", env | {"CLOUD_UI_PORT": str(port)})
    with (
        web_pages(driver_pages(DRIVER, {"id": "0", "isActive": True})) as port,
        pytest.raises(NotReadyError, match="query cloud has finished no micro-batch for 60 s, and 7 records wait"),
    ):
        health.check("cloud", env | {"CLOUD_UI_PORT": str(port)})


def test_each_job_has_a_port_for_its_web_pages():
    env = {"FOG_UI_PORT_BASE": "4050", "CLOUD_UI_PORT": "4044", "SQUARES_KAFKA_UI_PORT": "4046"}
    ports = [health.driver_ui_port(job, env) for job in ("fog-1", "fog-12", "fog-300", "cloud", "squares-kafka")]
    assert ports == [4051, 4062, 4350, 4044, 4046]


@pytest.mark.parametrize("name", ["fog", "fog-", "fog-one", "sensors", "", "Kafka", "spark-master", "CLOUD"])
def test_a_part_that_does_not_exist_is_named_with_those_that_do(name):
    env = {"CLOUD_UI_PORT": "4044", "SPARK_MASTER_UI_PORT": "8080"}
    with pytest.raises(
        ValueError,
        match=r"expected one of zookeeper, kafka, topics, spark, producer, board, history, prometheus, fog-N, cloud$",
    ):
        health.check(name, env)


def test_the_listening_ports_are_those_with_a_listener():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port, idle = server.getsockname()[1], bound.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            found = health.listening_ports()
            assert port in found
            assert idle not in found
            assert client.getsockname()[1] not in found, "a connection is no listener"
    assert port not in health.listening_ports()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_a_listener_on_ipv6_is_found_too():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert server.getsockname()[1] in health.listening_ports()


def test_the_number_producer_is_ready_when_its_port_has_a_listener_and_no_client_is_counted(closed_port):
    with socket.create_server(("127.0.0.1", 0)) as server:
        health.check("producer", {"NUMBERS_PORT": str(server.getsockname()[1])})
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    with pytest.raises(NotReadyError, match=f"nothing listens on port {closed_port}"):
        health.check("producer", {"NUMBERS_PORT": str(closed_port)})


def zookeeper(port: int) -> dict[str, str]:
    """Return the variables that tell where ZooKeeper is, and the shell what it needs."""
    return {"ZOOKEEPER_HOST": "127.0.0.1", "ZOOKEEPER_PORT": str(port), "PATH": "/usr/bin:/bin"}


def test_zookeeper_is_ready_when_it_says_that_it_is_ok(closed_port):
    with answering(lambda question: b"imok" if question == b"ruok" else b"?") as port:
        health.check("zookeeper", zookeeper(port))
    busy = b"This ZooKeeper instance is not currently serving requests\n"
    for answer, told in ((busy, "not currently serving"), (b"", "it takes connections, but gives no right answer")):
        with answering(lambda _, answer=answer: answer) as port, pytest.raises(NotReadyError, match=told):
            health.check("zookeeper", zookeeper(port))
    with pytest.raises(NotReadyError, match=r"no answer .*refused"):
        health.check("zookeeper", zookeeper(closed_port))


def broker(port: int) -> dict[str, str]:
    """Return the variables that tell where the broker is, and the shell what it needs."""
    return {"KAFKA_HOST": "127.0.0.1", "KAFKA_NETWORK_PORT": str(port), "PATH": "/usr/bin:/bin"}


def test_kafka_is_ready_when_it_answers_a_request(closed_port):
    # Kafka's protocol: length, then the request's correlation id (1), then the error code (0).
    with answering(lambda _: b"\0\0\0\x06" + b"\0\0\0\x01" + b"\0\0") as port:
        health.check("kafka", broker(port))
    for answer in (b"HTTP/1.1 400 Bad Request\r\n", b"", b"\0\0\0\x06" + b"\0\0\0\x02" + b"\0\0"):
        with answering(lambda _, answer=answer: answer) as port, pytest.raises(NotReadyError, match="no right answer"):
            health.check("kafka", broker(port))
    with pytest.raises(NotReadyError, match=r"no answer .*refused"):
        health.check("kafka", broker(closed_port))


def test_the_end_of_a_log_is_its_last_lines_under_its_name(tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "fog-1.log").write_bytes(b"".join(b"line %d\n" % number for number in range(100)) + b"caf\xe9\n")
    lines = health.log_end("fog-1", {"RUN_PATH": str(tmp_path)}, lines=3).splitlines()
    assert lines == [f"--- end of {logs / 'fog-1.log'}", "line 98", "line 99", "caf\ufffd"]
    assert health.log_end("fog-2", {"RUN_PATH": str(tmp_path)}) == ""


def test_the_log_of_spark_is_those_of_master_and_workers(tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    for name in ("spark-master", "spark-worker-1", "spark-worker-2"):
        (logs / f"{name}.log").write_text(f"{name} speaks\n")
    text = health.log_end("spark", {"RUN_PATH": str(tmp_path)})
    assert [line for line in text.splitlines() if "speaks" in line] == [
        "spark-master speaks",
        "spark-worker-1 speaks",
        "spark-worker-2 speaks",
    ]


def test_on_the_command_line_the_exit_code_answers(program, closed_port):
    with program("-m", "fedstream.stack.health", "producer", NUMBERS_PORT=str(closed_port)) as process:
        _, err = process.communicate()
    assert process.returncode == 1
    assert err.startswith("producer is not ready: nothing listens")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        with program("-m", "fedstream.stack.health", "producer", NUMBERS_PORT=port) as process:
            assert process.communicate() == ("", "")
    assert process.returncode == 0


def test_topics_of_a_broker_that_does_not_answer_in_time_are_not_ready_yet(program, closed_port):
    code = "from fedstream.stack import health; health.BROKER_TIMEOUT_MS = 200; health.main()"
    variables = {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{closed_port}", "NODES": "2"}
    with program("-c", code, "topics", **variables) as process:
        _, err = process.communicate()
    assert process.returncode == 1
    assert err.startswith(f"topics is not ready: no answer from 127.0.0.1:{closed_port} (KafkaTimeoutError")
