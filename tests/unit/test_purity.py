"""What has to work without Spark, or before anything is installed, does; the rest import-linter holds."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("path", ["producer/sensor_producer.py", "socket_stream/producer.py"])
def test_a_producer_runs_without_pyspark(program, path):
    code = f"import sys, runpy; sys.modules['pyspark'] = None; runpy.run_path('{path}')"
    with program("-c", code) as process:
        _, err = process.communicate()
    assert process.returncode == 0, err


def test_the_doctor_and_the_health_checks_need_no_installed_package(program):
    with program(
        "-S", "-c", "import fedstream.stack.doctor, fedstream.stack.health"
    ) as process:  # -S: without site-packages
        _, err = process.communicate()
    assert process.returncode == 0, err
