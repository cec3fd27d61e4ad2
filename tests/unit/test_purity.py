"""What has to work without Spark, without a Kafka client, or before anything is installed, does."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "module",
    ["settings", "messages.messages", "messages.model", "spark.state", "broker.kafka", "stack.health"],
    ids=lambda module: f"fedstream.{module}",
)
def test_a_module_without_spark_imports_without_pyspark(program, module):
    with program("-c", f"import sys; sys.modules['pyspark'] = None; import fedstream.{module}") as process:
        _, err = process.communicate()
    assert process.returncode == 0, err


@pytest.mark.parametrize("path", ["producer/sensor_producer.py", "socket_stream/producer.py"])
def test_a_producer_runs_without_pyspark(program, path):
    code = f"import sys, runpy; sys.modules['pyspark'] = None; runpy.run_path('{path}')"
    with program("-c", code) as process:
        _, err = process.communicate()
    assert process.returncode == 0, err


@pytest.mark.parametrize("module", ["settings", "messages.messages", "messages.model", "spark.state"])
def test_the_maths_the_messages_and_the_state_know_no_kafka_client_either(program, module):
    with program("-c", f"import sys; sys.modules['kafka'] = None; import fedstream.{module}") as process:
        _, err = process.communicate()
    assert process.returncode == 0, err


def test_the_doctor_and_the_health_checks_need_no_installed_package(program):
    with program(
        "-S", "-c", "import fedstream.stack.doctor, fedstream.stack.health"
    ) as process:  # -S: without site-packages
        _, err = process.communicate()
    assert process.returncode == 0, err
