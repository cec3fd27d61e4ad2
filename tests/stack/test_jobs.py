"""What each service and job of the real stack gives, checked as data."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource
from kafka.errors import InvalidTimestampError, KafkaError, MessageSizeTooLargeError

from tests.stack.stack import ENV, ROOT, TOPICS, Stack, eventually, weight_of


@pytest.fixture(scope="module", autouse=True)
def stop_squares(one_stack: Stack) -> Iterator[None]:
    yield
    one_stack.stop("squares")  # no other module uses them


def bad_readings() -> list[tuple[bytes | None, str]]:
    """Return (value, part of the reason) for every kind of bad reading."""
    good = {"sensor_id": "node-1", "temperature": 72.48, "vibration": 0.071, "label": 0}

    def reading(**fields: object) -> bytes:
        return json.dumps(good | fields).encode()

    def without(field: str) -> bytes:
        return json.dumps({name: value for name, value in good.items() if name != field}).encode()

    return [
        (b"hello", "not JSON"),
        (json.dumps(good).encode()[:-1], "not JSON"),
        (b"[1, 2]", "not a JSON object but a list"),
        *((without(field), f"{field} is missing; expected ") for field in good),
        *((reading(**{field: None}), f"{field} is null; expected ") for field in good),
        (reading(temperature="72.48"), 'temperature is "72.48"; expected a number from -100 to 1000'),
        (reading(vibration=[0.07]), "vibration is [0.07]; expected a number from 0 to 1000"),
        (reading(label=0.5), "label is 0.5; expected the whole number 0 or 1"),
        (reading(sensor_id=7.5), "sensor_id is 7.5; expected the name of a sensor"),
        (reading(temperature=float("nan")), "not JSON"),
        (reading(vibration=float("inf")), "not JSON"),
        (reading(vibration=0.07).replace(b"0.07", b"1e999"), "vibration is Infinity; expected"),
        (reading(label=2), "label is 2; expected the whole number 0 or 1"),
        (reading(label=-1), "label is -1; expected the whole number 0 or 1"),
        (reading(event_time="soon"), 'event_time is "soon"; expected a time since 1970'),
        (reading(temperature=-100.01), "temperature is -100.01"),
        (reading(temperature=1000.01), "temperature is 1000.01"),
        (reading(vibration=-0.001), "vibration is -0.001; expected a number from 0 to 1000"),
        (reading(vibration=1e307), "expected a number from 0 to 1000"),
        (b"", "empty value"),
        (None, "empty value"),
        (reading(note="x" * 900_000), "expected at most MAX_VALUE_BYTES=65536"),
        (b'{"sensor_id":"node-\xff","temperature":72,"vibration":0.07,"label":0}', "invalid UTF-8"),
    ]


@pytest.mark.smoke
def test_fog_nodes_and_cloud_give_the_formulas_of_the_contract(empty_stack: Stack) -> None:
    stack = empty_stack
    printed = stack.make("-j2", "run-fog", "run-cloud")
    assert "fog-2" in printed
    sent = stack.python("producer/sensor_producer.py", "--count", "401", "--rate", "0", "--seed", "11", "--no-quiet")
    lines = re.findall(r"^Node-(\d): (\{.*\})$", sent.stdout, re.M)
    assert len(lines) == 401, sent
    assert lines[0][1].startswith("{'sensor_id': 'node-1', 'temperature': ")
    expected = {}
    for node, samples in ((1, 201), (2, 200)):  # 401 readings in turn
        stack.eventually_counts(node, samples)
        expected[f"fog-{node}"] = (weight_of(stack.messages(f"sensor-data-node-{node}")), samples)
    latest = {f"fog-{node}": stack.updates(node)[-1] for node in (1, 2)}
    for name, (weight, samples) in expected.items():
        assert latest[name]["samples"] == samples
        assert latest[name]["weight"] == pytest.approx(weight, abs=0.5001e-4)  # an update is rounded to 4 decimals
    keys = {record.key.decode() for record in stack.records("model-weights")}
    assert keys == {"fog-1", "fog-2"}
    model = eventually("samples of the model", stack.model, lambda seen: seen["samples"] == 401)
    # Weighted by samples; a plain mean of the two differs as 201 differs from 200.
    mean = (latest["fog-1"]["weight"] * 201 + latest["fog-2"]["weight"] * 200) / 401
    assert model["global_weight"] == pytest.approx(mean, abs=1e-9)
    assert {record.key for record in stack.records("global-model")} <= {b"weight", b"mlp"}
    newest = latest["fog-1"]
    assert f"Fog-1 -> poids envoyé : {{'node_id': 'fog-1', 'weight': {newest['weight']}, 'samples': 201" in stack.log(
        "fog-1"
    )
    assert f"|{model['global_weight']!r}" in stack.log("cloud")


def test_a_running_driver_shows_its_page(fog_and_cloud: Stack) -> None:
    stack = fog_and_cloud
    page = str(int(ENV["FOG_UI_PORT_BASE"]) + 1)
    (application,) = stack.get(page, "/api/v1/applications")
    assert application["name"] == "FogNode1"
    environment = stack.get(page, f"/api/v1/applications/{application['id']}/environment")
    assert ["spark.ui.killEnabled", "false"] in environment["sparkProperties"]  # a link would end the job
    if stack.runner == "local":  # nobody sweeps temporary files there
        assert ["java.io.tmpdir", f"{ROOT}/{ENV['RUN_DIR']}/tmp"] in environment["systemProperties"]


def test_every_bad_reading_goes_to_dead_letter_and_good_ones_of_the_batch_are_kept(fog_and_cloud: Stack) -> None:
    stack = fog_and_cloud
    stack.settled_model()  # all that was sent before is counted
    last = stack.updates(1)[-1]
    before, letters = last["samples"], stack.end_offset("dead-letter")
    first_bad = stack.end_offset("sensor-data-node-1") + 1
    bad = bad_readings()
    good = b'{"sensor_id":"node-1","temperature":%d,"vibration":0.07,"label":0,"unknown":[1]}'
    long = good.replace(b"[1]", b'"%s"' % (b"x" * 2000))
    stack.send("sensor-data-node-1", good % 70, *(value for value, _ in bad), long % 80)
    eventually("good readings", lambda: stack.samples(1), lambda seen: seen == before + 2)
    eventually("dead letters", lambda: stack.end_offset("dead-letter"), lambda seen: seen >= letters + len(bad))
    by_offset = {letter["offset"]: letter for letter in stack.messages("dead-letter", letters)}
    assert sorted(by_offset) == list(range(first_bad, first_bad + len(bad)))
    for offset, (value, reason) in enumerate(bad, start=first_bad):
        letter = by_offset[offset]
        assert reason in letter["reason"], (value and value[:200], letter["reason"])
        assert (letter["topic"], letter["partition"]) == ("sensor-data-node-1", 0)
        assert (None if letter["value"] is None else base64.b64decode(letter["value"])) == value
        assert letter["time"] > 1_700_000_000_000
        assert letter["by"] == "fog-1"
    assert stack.updates(1)[-1]["rejected"] == last["rejected"] + len(bad)


def test_bad_replayed_and_late_updates_change_no_global_model(fog_and_cloud: Stack) -> None:
    stack = fog_and_cloud
    model = stack.settled_model()
    count, letters = len(stack.weights()), stack.end_offset("dead-letter")
    updates = [json.dumps(update).encode() for update in stack.updates(1)]
    bad = {
        b"hello": "not JSON",
        b'{"node_id":"fog-9","weight":40.2}': "samples is missing",
        b'{"node_id":"fog-9","weight":NaN,"samples":3}': "not JSON",
        b'{"node_id":"fog-9","weight":1e999,"samples":3}': "weight is Infinity",
        b'{"node_id":"fog-9","weight":1e308,"samples":3}': "expected a number of at most",
        b'{"node_id":"fog-9","weight":1' + b"0" * 5000 + b',"samples":3}': "weight is too long to be shown",
        b'{"node_id":"fog-9","weight":40.2,"samples":0}': "samples is 0",
        b'{"node_id":"fog-9","weight":"40","samples":3}': 'weight is "40"; expected a number',
    }
    stack.send("model-weights", *bad, updates[0], updates[-1])
    eventually("dead letters", lambda: len(stack.messages("dead-letter", letters)), lambda seen: seen == len(bad))
    found = {base64.b64decode(letter["value"]): letter["reason"] for letter in stack.messages("dead-letter", letters)}
    assert all(reason in found[value] for value, reason in bad.items()), found
    # A new node after all of them: its model comes from a batch behind them, so they have been seen by then.
    stack.send("model-weights", b'{"node_id":"fog-9","weight":50.0,"samples":1000}')
    after = eventually("the next model", lambda: stack.weights()[count:], lambda seen: len(seen) > 0)
    samples = model["samples"] + 1000
    assert len(after) == 1
    assert after[0]["global_weight"] == pytest.approx(
        (model["global_weight"] * model["samples"] + 50_000) / samples, abs=1e-9
    )
    assert (after[0]["samples"], after[0]["nodes"]) == (samples, model["nodes"] + 1)


def test_topics_exist_with_one_partition_each_and_none_is_made_by_mistake(stack: Stack) -> None:
    described = stack.make("topics")
    partitions = dict(re.findall(r"^Topic: (\S+).*PartitionCount: (\d+)", described, re.M))
    assert {topic: partitions.get(topic) for topic in TOPICS} == dict.fromkeys(TOPICS, "1")
    assert re.search(r"dead-letter.*max.message.bytes=2097152", described)
    with KafkaProducer(bootstrap_servers=stack.bootstrap, max_block_ms=3000) as producer, pytest.raises(KafkaError):
        producer.send("sensor-dta-node-1", b"{}").get(timeout=5)
    assert "sensor-dta" not in stack.make("topics")


def test_the_broker_refuses_what_would_fill_its_memory_or_stay_for_ever(stack: Stack) -> None:
    with socket.create_connection(("localhost", int(ENV["KAFKA_PORT"])), timeout=10) as connection:
        connection.sendall((5 * 2**20).to_bytes(4, "big"))  # the length of a request; it ends the connection at once
        assert connection.recv(1) == b""
    year_2100, before = 4_102_444_800_000, stack.end_offset("sensor-data")
    with KafkaProducer(bootstrap_servers=stack.bootstrap) as producer, pytest.raises(InvalidTimestampError):
        producer.send("sensor-data", b"{}", timestamp_ms=year_2100).get(timeout=30)
    packing = KafkaProducer(bootstrap_servers=stack.bootstrap, compression_type="gzip", max_request_size=2**30)
    with packing as producer, pytest.raises(MessageSizeTooLargeError):
        producer.send("sensor-data", bytes(64 * 2**20)).get(timeout=60)  # 64 kB packed
    assert stack.end_offset("sensor-data") == before
    with KafkaAdminClient(bootstrap_servers=stack.bootstrap) as admin:
        resource = ConfigResource("TOPIC", "sensor-data-node-1")
        config = admin.describe_configs([resource], config_filter="all")["topic"]["sensor-data-node-1"]
    assert f"TOPIC_BYTES={config['retention.bytes']['value']}\n" in (ROOT / ".env").read_text()


def test_both_listeners_serve_a_reading_from_their_side(stack: Stack) -> None:
    network = f"{'kafka' if stack.runner == 'docker' else 'localhost'}:{ENV['KAFKA_NETWORK_PORT']}"
    start = stack.end_offset("sensor-data")
    arguments = ["producer/sensor_producer.py", "--nodes", "1", "--count", "3", "--rate", "0", "--topic", "sensor-data"]
    inside = stack.python(*arguments, KAFKA_BOOTSTRAP_SERVERS=network)
    assert "3 readings sent, all acknowledged" in inside.stdout, inside
    # The host's listener answers this test, which runs on the host.
    assert [reading["sensor_id"] for reading in stack.messages("sensor-data", start)] == ["node-1"] * 3


def test_kafka_tools_by_hand_on_both_addresses(stack: Stack) -> None:
    addresses = [f"localhost:{ENV['KAFKA_PORT']}"]
    addresses += [f"kafka:{ENV['KAFKA_NETWORK_PORT']}"] if stack.runner == "docker" else []
    for address in addresses:
        server = ["--bootstrap-server", address]
        # The report's own command; the topic exists from the start, which is no error.
        created = stack.run(
            "kafka",
            "kafka-topics",
            *server,
            "--create",
            "--topic",
            "sensor-data",
            "--partitions",
            "1",
            "--replication-factor",
            "1",
        )
        assert created.returncode == 0, created
        assert set(TOPICS) <= set(stack.run("kafka", "kafka-topics", *server, "--list").stdout.split())
        described = stack.run("kafka", "kafka-topics", *server, "--describe", "--topic", "model-weights").stdout
        assert "PartitionCount: 1" in described
        start = stack.end_offset("sensor-data")
        sent = stack.run("kafka", "kafka-console-producer", *server, "--topic", "sensor-data", text="bonjour\n")
        assert sent.returncode == 0, sent
        read = stack.run(
            "kafka", "kafka-console-consumer", *server, "--topic", "sensor-data",
            "--partition", "0", "--offset", str(start), "--max-messages", "1", "--timeout-ms", "20000",
        )  # fmt: skip
        assert read.stdout == "bonjour\n", read


def test_master_shows_two_workers_and_links_that_open_from_the_host(stack: Stack) -> None:
    def alive() -> list[dict]:  # the master's list also keeps those that it has lost
        return [each for each in stack.get("SPARK_MASTER_UI_PORT", "/json/")["workers"] if each["state"] == "ALIVE"]

    workers = eventually("two workers", alive, lambda seen: len(seen) == 2)
    links = sorted(worker["webuiaddress"] for worker in workers)
    assert links == [f"http://localhost:{ENV[f'SPARK_WORKER_{number}_UI_PORT']}" for number in (1, 2)]
    for number in (1, 2):
        assert stack.get(f"SPARK_WORKER_{number}_UI_PORT", "/json/")["masterurl"].endswith(ENV["SPARK_MASTER_PORT"])


@pytest.mark.smoke
def test_sum_prints_the_line_of_the_report(stack: Stack) -> None:
    # Behind it Spark may complain that the master was late: of a job this short it is sometimes.
    assert stack.make("run-sum").startswith("La somme des entiers de 1 à 100 est : 5050\n")


def test_sum_submitted_by_hand(stack: Stack) -> None:
    jar = "/app/app-sum.jar" if stack.runner == "docker" else "java-sum/target/app-sum-1.0-SNAPSHOT.jar"
    host = "spark-master" if stack.runner == "docker" else "localhost"
    command = ["spark-submit", "--class", "App", "--master", f"spark://{host}:{ENV['SPARK_MASTER_PORT']}", jar]
    done = stack.run("spark-master", *command)
    assert done.stdout == "La somme des entiers de 1 à 100 est : 5050\n", done
    if stack.runner == "docker":
        assert stack.run("spark-master", "test", "-x", "/opt/spark/bin/spark-submit").returncode == 0


def test_the_history_server_shows_the_sum_that_has_ended(stack: Stack) -> None:
    def ended() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = stack.get("SPARK_HISTORY_UI_PORT", "/api/v1/applications?status=completed")
        return [each for each in found if each["name"] == "SommeEntiers"]

    assert f":{ENV['SPARK_HISTORY_UI_PORT']}" in stack.make("history")
    if not ended():  # no test before has made a sum
        stack.make("run-sum")
    listed = eventually("it is listed", ended, lambda seen: len(seen) > 0)
    page = f"/api/v1/applications/{listed[0]['id']}"
    (job,) = stack.get("SPARK_HISTORY_UI_PORT", f"{page}/jobs")
    executors = [each for each in stack.get("SPARK_HISTORY_UI_PORT", f"{page}/allexecutors") if each["id"] != "driver"]
    assert job["status"] == "SUCCEEDED"
    # Report B: the tasks were divided between the two workers.
    assert [each["completedTasks"] for each in executors] == [job["numTasks"] // 2] * 2
    stack.stop("history")


def test_sensors_stop_without_losing_a_reading(stack: Stack) -> None:
    start = stack.end_offset("sensor-data")
    stack.make("run-producer", "ARGS=--rate 200 --topic sensor-data --seed 3")
    eventually("readings", lambda: stack.end_offset("sensor-data"), lambda seen: seen > start + 500)
    stack.stop("sensors")
    sent = re.findall(r"(\d+) readings sent, all acknowledged", stack.log("sensors"))
    assert sent, stack.log("sensors")
    assert stack.end_offset("sensor-data") - start == int(sent[-1])


def test_csv_replay_with_mapped_columns(stack: Stack, tmp_path: Path) -> None:
    start = stack.end_offset("sensor-data")
    content = "machine,temp_c,vib_g\nm7,61.5,0.03\nm8,86,0.05\n"
    if stack.runner == "docker":
        stack.run("spark-master", "sh", "-c", "cat > /tmp/machines.csv", text=content)
        file = "/tmp/machines.csv"
    else:
        file = str(tmp_path / "machines.csv")
        Path(file).write_text(content)
    columns = "sensor_id=machine,temperature=temp_c,vibration=vib_g"
    done = stack.python(
        "producer/sensor_producer.py", "--csv", file, "--columns", columns, "--rate", "0", "--topic", "sensor-data"
    )
    assert done.returncode == 0, done
    assert stack.messages("sensor-data", start) == [
        {"sensor_id": "m7", "temperature": 61.5, "vibration": 0.03, "label": 0},
        {"sensor_id": "m8", "temperature": 86.0, "vibration": 0.05, "label": 1},  # 86 > 85
    ]


def test_a_bad_setting_stops_a_job_with_name_value_and_expectation(stack: Stack) -> None:
    done = stack.run("spark-master", "spark-submit", "fog/fog_node.py", "--node", "1", MAX_VALUE_BYTES="many")
    assert done.returncode != 0
    assert "Error: MAX_VALUE_BYTES is 'many'; expected a whole number of at least 1" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_an_unreachable_broker_or_master_is_named_after_a_bounded_wait(stack: Stack) -> None:
    soon = {"WAIT_TIMEOUT_SECONDS": "2"}
    done = stack.python("producer/sensor_producer.py", KAFKA_BOOTSTRAP_SERVERS="localhost:1", **soon)
    assert done.returncode == 1
    assert "Error: no Kafka broker answered at localhost:1 within 2 s" in done.stderr
    done = stack.run("spark-master", "spark-submit", "--master", "spark://localhost:1", "cloud/aggregator.py", **soon)
    assert done.returncode != 0
    assert "Error: no Spark master answered at spark://localhost:1 within 2 s" in done.stdout


def test_squares_on_both_workers_and_through_a_restart_of_the_producer(stack: Stack) -> None:
    stack.make("run-squares")

    def pairs(after: str = "") -> list[tuple[str, str]]:
        """Return the pairs in the log, or those behind the last line with this text."""
        log = stack.log("squares")
        return re.findall(r"^\((-?\d+), (\d+)\)$", log.rpartition(after)[2] if after else log, re.M)

    seen = eventually("six squares", pairs, lambda seen: len(seen) >= 6)
    assert all(int(number) ** 2 == int(square) for number, square in seen)
    assert all(1 <= int(number) <= 100 for number, _ in seen)
    assert times_of_squares(stack)

    def busy_executors() -> list[str]:
        url = "/api/v1/applications"
        application = stack.get("SQUARES_UI_PORT", url)[0]["id"]
        executors = stack.get("SQUARES_UI_PORT", f"{url}/{application}/executors")
        return [
            each["executorLogs"]["stdout"] for each in executors if each["id"] != "driver" and each["completedTasks"]
        ]

    logs = eventually("two executors with tasks", busy_executors, lambda seen: len(seen) == 2)
    # Each executor's log is served by its worker's page.
    assert {re.search(r":(\d+)/", log)[1] for log in logs} == {
        ENV["SPARK_WORKER_1_UI_PORT"],
        ENV["SPARK_WORKER_2_UI_PORT"],
    }  # type: ignore[index]
    stack.stop("producer")
    eventually("the loss is noticed", lambda: stack.log("squares"), lambda seen: "Producteur parti" in seen)
    stack.start("producer")
    eventually("squares again", lambda: pairs(after="Producteur parti"), lambda seen: len(seen) >= 3)
    assert "Producteur en écoute sur" in stack.log("producer")


def resident_bytes(stack: Stack) -> int:
    """Return the memory that all processes of the stack have in RAM."""
    if stack.runner == "docker":
        units = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
        project = f"label=com.docker.compose.project={ENV['COMPOSE_PROJECT_NAME']}"
        names = subprocess.check_output(["docker", "ps", "-q", "--filter", project], text=True).split()
        listed = subprocess.check_output(
            ["docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", *names], text=True
        )
        return round(sum(float(size) * units[unit] for size, unit in re.findall(r"^([\d.]+)(\w+) /", listed, re.M)))
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"RUN_PATH={ROOT}/{ENV['RUN_DIR']}".encode() in (process / "environ").read_bytes():
                total += int(re.search(r"VmRSS:\s+(\d+)", (process / "status").read_text())[1]) * 1024  # type: ignore[index]
        except (OSError, TypeError):
            continue
    return total


def times_of_squares(stack: Stack) -> list[str]:
    return re.findall(r"^Time: (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)$", stack.log("squares"), re.M)


def test_four_streams_and_the_sum_run_at_once_in_eight_gigabytes_and_are_well(stack: Stack, run_sensors) -> None:
    stack.make("-j3", "run-fog", "run-cloud", "run-squares")
    run_sensors(50)
    before = stack.samples(1), stack.samples(2), stack.end_offset("global-model")
    squares = max(times_of_squares(stack), default="")
    # 10 + 11 + 12 + 13 = 46, and 46 / 4 = 11.5
    assert "La moyenne des entiers de 10 à 13 est : 11.5\n" in stack.make("run-sum", "ARGS=10 13 --mean")
    eventually("readings of fog-1", lambda: stack.samples(1), lambda seen: seen > before[0] + 100)
    eventually("readings of fog-2", lambda: stack.samples(2), lambda seen: seen > before[1] + 100)
    eventually("global models", lambda: stack.end_offset("global-model"), lambda seen: seen > before[2] + 2)
    eventually("squares", lambda: times_of_squares(stack), lambda seen: sum(time > squares for time in seen) > 2)
    used = resident_bytes(stack)
    print(f"resident with all jobs: {used / 2**30:.2f} GiB")
    assert 2**30 < used < 8 * 10**9
    assert f"the stack is well ({stack.runner} runner)" in stack.make("doctor")
    listed = stack.make("ps")
    for name in ("zookeeper", "kafka", "spark-master", "spark-worker-2", "producer", "fog-1", "cloud", "squares"):
        assert name in listed
