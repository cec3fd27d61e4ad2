"""What one file says and another one repeats: versions, settings, services, targets, ports, users, line endings."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedstream.settings import Settings

# The documented contract.
TARGETS = [
    *("help", "setup", "up", "down", "clean", "ps", "logs", "doctor", "topics"),
    *("run-producer", "run-fog", "run-cloud", "run-squares", "run-sum", "stop-jobs", "submit", "plot"),
    *("demo", "bench", "soak", "test", "test-unit", "test-spark", "test-stack", "docs", "lint"),
]
SETTING_NAMES = [field.name.upper() for field in fields(Settings)]

ROOT = Path(__file__).parents[2]
DOTENV_LINES = [line for line in (ROOT / ".env").read_text().splitlines() if line.strip() and not line.startswith("#")]
DOTENV = dict(line.partition("=")[::2] for line in DOTENV_LINES)
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PASSED_ON = re.findall(r"(?m)^([A-Z0-9_]+)$", (ROOT / "deploy/docker/settings.env").read_text())
DESCRIBED_TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def repository_files() -> list[Path]:
    """Return the files that are in the repository or would be added to it."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip("\0").split("\0")
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def supervisord_conf() -> configparser.RawConfigParser:
    """Return what supervisord of the local runner is told."""
    parser = configparser.RawConfigParser()
    parser.read_string((ROOT / "deploy" / "local" / "supervisord.conf").read_text())
    return parser


def supervised() -> dict[str, str]:
    """Return the command of each process of the local runner; of the fog nodes, those that .env asks for."""
    parser = supervisord_conf()
    commands = {}
    for section in parser.sections():
        if section.startswith("program:"):
            name = section.removeprefix("program:")
            count = DOTENV["NODES"] if name == "fog" else parser.get(section, "numprocs", fallback="1")
            first = int(parser.get(section, "numprocs_start", fallback="0"))
            pattern = parser.get(section, "process_name", fallback=name)
            for number in range(first, first + int(count)):
                process = pattern.replace("%(process_num)s", str(number))
                commands[process] = parser.get(section, "command").replace("%(process_num)s", str(number))
    return commands


# --- versions and .env

LOCKS = ("requirements.lock", "requirements-spark.lock")


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("pyproject.toml", r'"pyspark==([^"]+)"'),
        ("requirements.lock", r"(?m)^pyspark==(\S+)"),
        ("java-sum/pom.xml", r"<spark\.version>([^<]+)</spark\.version>"),
    ],
)
def test_the_version_of_spark_is_the_one_of_dotenv(file, pattern):
    assert re.findall(pattern, (ROOT / file).read_text()) == [DOTENV["SPARK_VERSION"]]


def test_the_image_has_the_same_packages_as_a_setup_without_docker():
    whole, image = (re.findall(r"(?m)^\S+==[^\\\n]+", (ROOT / name).read_text()) for name in LOCKS)
    assert set(image) < set(whole)
    assert len(image) > 20
    (wanted,) = re.findall(r'requires = \["(setuptools==\S+)"\]', (ROOT / "pyproject.toml").read_text())
    assert {f"{wanted} "} <= set(image)


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_one_of_the_files_that_were_locked(name):
    for package in re.split(r"\n(?=\S)", (ROOT / name).read_text().strip()):
        assert package.startswith("#") or "--hash=sha256:" in package


@pytest.mark.parametrize("line", DOTENV_LINES)
def test_a_line_of_dotenv_is_a_name_and_a_value_without_spaces_or_quotes(line):
    assert re.fullmatch(r"[A-Z][A-Z0-9_]*=[^\s'\"]*", line)


def test_dotenv_sets_no_name_twice():
    assert len(DOTENV) == len(DOTENV_LINES)


def test_dotenv_can_be_read_by_the_settings():
    Settings.from_env(DOTENV)


# --- Compose


def test_every_setting_reaches_the_containers():
    dockerfile = (ROOT / "spark_cluster" / "Dockerfile").read_text()
    elsewhere = set(COMPOSE["x-environment"]) | set(re.findall(r"\b([A-Z_]+)=", dockerfile))
    assert set(SETTING_NAMES) <= set(PASSED_ON) | elsewhere, "add the missing ones to deploy/docker/settings.env"
    assert set(PASSED_ON) <= set(SETTING_NAMES) | set(DOTENV), "nobody reads the others"
    assert not set(PASSED_ON) & elsewhere, "of two values one would be ignored"


@pytest.mark.parametrize("service", sorted(set(SERVICES) - {"zookeeper", "kafka", "prometheus"}))
def test_a_service_of_the_spark_image_gets_the_settings(service):
    assert COMPOSE["x-environment"].items() <= SERVICES[service]["environment"].items()
    assert SERVICES[service]["env_file"] == ["deploy/docker/settings.env"]


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_containers_log_is_bounded(service):
    options = SERVICES[service]["logging"]["options"]
    assert set(options) == {"max-size", "max-file"}


def test_every_variable_that_compose_uses_is_in_dotenv_or_has_a_default():
    used = re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)(:?-)?", COMPOSE_TEXT)
    assert len(used) > 20
    assert {name for name, default in used if not default} <= set(DOTENV)


def test_every_variable_that_compose_passes_on_by_name_is_in_dotenv_or_a_setting():
    for service, definition in SERVICES.items():
        by_name = {name for name, value in definition.get("environment", {}).items() if value is None}
        by_name |= {name for name, value in definition.get("build", {}).get("args", {}).items() if value is None}
        assert by_name <= set(DOTENV) | set(SETTING_NAMES), service


@pytest.mark.parametrize("service", [name for name, definition in SERVICES.items() if "build" in definition])
def test_every_build_argument_of_an_image_is_given(service):
    build = SERVICES[service]["build"]
    dockerfile = (ROOT / build["context"] / build["dockerfile"]).read_text()
    wanted = {name for line in re.findall(r"(?m)^ARG (.+)$", dockerfile) for name in line.split()}
    assert wanted == set(build["args"])


def test_both_runners_have_the_same_services_and_jobs():
    assert set(supervised()) == set(SERVICES)


def test_the_local_runners_group_of_jobs_has_all_jobs_of_compose():
    jobs = {
        re.sub(r"^fog-\d+$", "fog", name) for name, service in SERVICES.items() if "jobs" in service.get("profiles", [])
    }
    assert set(supervisord_conf().get("group:jobs", "programs").split(",")) == jobs


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_both_runners_start_a_service_with_the_same_script_and_arguments(service):
    def words(command: list[str]) -> list[str]:
        # Variables stand in their own way in either file; the local producer listens on its own address.
        text = re.sub(r"%\(ENV_(\w+)\)s", r"${\1}", " ".join(command)).replace("--host ${LISTEN_ADDRESS} ", "")
        return text.split()

    assert words([supervised()[service]]) == words(SERVICES[service]["command"])


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_container_is_named_after_its_service_with_the_prefix(service):
    assert SERVICES[service]["container_name"] == f"${{CONTAINER_PREFIX}}{service}"


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_published_port_binds_to_the_bind_address_only(service):
    for port in SERVICES[service].get("ports", []):
        assert isinstance(port, str)
        assert port.startswith("${BIND_ADDRESS}:")


def test_every_port_of_the_reports_is_published():
    # ZooKeeper, Kafka, Spark master and its page, the workers' pages, the first driver's page, the numbers.
    published = " ".join(port for service in SERVICES.values() for port in service.get("ports", []))
    for value in ("2181", "9092", "7077", "8080", "8081", "8082", "4040", "9999"):
        (name,) = (name for name, port in DOTENV.items() if port == value)
        assert f"${{{name}}}" in published


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_container_has_no_privilege_that_it_does_not_need(service):
    definition = SERVICES[service]
    assert not {"privileged", "cap_add", "devices", "pid", "network_mode", "user", "userns_mode"} & set(definition)
    assert definition["cap_drop"] == ["ALL"]
    assert definition["security_opt"] == ["no-new-privileges:true"]
    assert not any("docker.sock" in str(volume) for volume in definition.get("volumes", []))
    assert definition["mem_limit"]
    assert definition["pids_limit"] == 4096
    # What one tries out is copied into the master: docker cp.
    assert (definition["read_only"], definition["tmpfs"]) == (service != "spark-master", ["/tmp:exec"])


def test_the_list_of_a_killed_master_outlives_the_restart_of_its_container():
    variables = (ROOT / "spark_cluster/Dockerfile").read_text()
    folder = re.search(r" SPARK_RECOVERY_DIR=(\S+)", variables)[1]
    in_memory = [mount.partition(":")[0] for mount in SERVICES["spark-master"]["tmpfs"]]  # emptied by a restart
    assert not any(folder.startswith(f"{mount}/") for mount in in_memory)
    assert not SERVICES["spark-master"]["read_only"]
    assert re.search(rf"install -d -o stack .*{folder}\b", variables)


def test_grafana_has_the_bounds_of_the_stacks_own_services():
    grafana = yaml.safe_load((ROOT / "deploy/monitoring/grafana/docker-compose.yml").read_text())["services"]["grafana"]
    bounds = ("logging", "cap_drop", "security_opt", "pids_limit")
    assert {name: grafana[name] for name in bounds} == {name: SERVICES["board"][name] for name in bounds}


DOCKERFILES = sorted(path for path in repository_files() if path.name == "Dockerfile")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_the_code_in_an_image_is_not_that_of_the_user_who_runs_it(dockerfile):
    text = dockerfile.read_text()
    last_stage = text[text.rindex("\nFROM ") :]
    assert len(re.findall(r"(?m)^USER stack$", last_stage)) == 1
    assert not re.findall(r"--chown|(?m:^(?:RUN|COPY|ADD) )", last_stage[last_stage.index("\nUSER") :])
    assert "--chown" not in text
    written = re.findall(r"install -d -o stack ([^&\n]+)", last_stage)
    paths = [path for line in written for path in line.split() if not path.startswith("/data")]
    assert set(paths) <= {"/var/spark-master"}


def test_an_action_of_the_workflow_is_named_by_its_commit():
    uses = re.findall(r"uses: (\S+)(.*)", next((ROOT / ".github/workflows").glob("*.yml")).read_text())
    assert len(uses) >= 4
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name) and " # v" in tag for name, tag in uses)


@pytest.mark.parametrize(
    "dockerfile",
    [ROOT / "deploy/kafka/Dockerfile", ROOT / "spark_cluster/Dockerfile"],
    ids=lambda path: path.parent.name,
)
def test_an_image_runs_as_the_user_stack_under_tini(dockerfile):
    instructions = re.findall(r"(?m)^([A-Z]+) (.*)$", dockerfile.read_text())
    last_stage = instructions[max(i for i, (word, _) in enumerate(instructions) if word == "FROM") :]
    assert [argument for word, argument in last_stage if word == "USER"] == ["stack"]
    after_user = last_stage[[word for word, _ in last_stage].index("USER") + 1 :]
    assert not {word for word, _ in after_user} & {"RUN", "COPY", "ADD"}
    assert dict(last_stage)["ENTRYPOINT"].startswith('["tini",')


# --- make


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_of_the_contract_exists_with_a_description(target):
    assert target in DESCRIBED_TARGETS


def test_the_base_image_can_be_made_though_it_is_not_in_the_list():
    assert re.search(r"(?m)^base-image:", (ROOT / "Makefile").read_text())


# --- files


def test_programs_are_executable_and_shell_scripts_say_what_runs_them():
    programs = [path for path in repository_files() if path.read_bytes().startswith(b"#!")]
    assert {"deploy/kafka/ask.sh", "spark_cluster/start-job.sh"} <= {str(path.relative_to(ROOT)) for path in programs}
    assert [path for path in programs if not os.access(path, os.X_OK)] == []
    names = (
        "deploy/jobs.sh",
        "deploy/docker/containers.sh",
        "deploy/local/env.sh",
        "spark_cluster/spark-env.sh",
        "tests/stack/clock.sh",
    )
    sourced = {ROOT / name for name in names}
    assert {path for path in repository_files() if path.suffix == ".sh"} - set(programs) == sourced


def test_text_files_end_their_lines_as_linux_does():
    text = [path for path in repository_files() if path.suffix not in (".png", ".jar", ".pdf")]
    assert [path for path in text if b"\r" in path.read_bytes()] == []


@pytest.mark.parametrize("command", sorted({" ".join(service["command"]) for service in SERVICES.values()}))
def test_the_program_of_a_command_exists(command):
    program, *arguments = command.split()
    if program == "python" and arguments[0] == "-m":
        assert (ROOT / f"{arguments[1].replace('.', '/')}.py").is_file()
    else:
        assert (ROOT / (arguments[0] if program == "python" else program)).is_file()


def test_the_images_hold_every_job():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    scripts = re.findall(r"\b([\w-]+)/\w+\.py\b", (ROOT / "spark_cluster/start-job.sh").read_text())
    assert len(scripts) >= 7
    assert set(scripts) <= kept


def test_a_jar_that_is_not_the_locked_one_is_refused_and_named(tmp_path):
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "a.jar").write_text("a")
    digest = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"  # SHA-256 of the letter a
    for listed, code in (
        (f"{digest}  a.jar\n", 0),
        (f"{'0' * 64}  a.jar\n", 1),
        (f"{digest}  a.jar\n{digest}  b.jar\n", 1),
    ):
        (tmp_path / "jars.sha256").write_text(listed)
        command = [ROOT / "deploy" / "check-jars.sh", tmp_path / "jars", tmp_path / "jars.sha256"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == code, done
        assert ("are not those of jars.sha256" in done.stderr) == bool(code)
