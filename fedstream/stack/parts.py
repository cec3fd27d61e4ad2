"""Which parts of a running stack are in trouble, and why: what `make ps` and `make doctor` say beside their names.

Runs on the host, perhaps before anything is installed: it needs the standard library only, until a local stack runs.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import time
import xmlrpc.client
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from fedstream.stack import health, jobs, processes

START_SECONDS = 180  # a driver may take so long for its first executor
JUST_STARTED_SECONDS = 60
MANY_ENDS = 2
MANY = "ended {} times and was started again"
LATELY = timedelta(minutes=3)
LOG_LINES = 500
STOPPED_CODES = ("0", "137", "143")  # at its end, or by docker stop
SERVICES = {
    name: name for name in ("zookeeper", "kafka", "topics", "spark-worker-1", "spark-worker-2", "producer", "board")
}
SERVICES |= {"spark-master": "spark"}

# What ends a program: its own paragraph, or the last line of a trace.
_LAST_WORD = re.compile(r"^(?:Error: (?P<told>.+)|(?P<raised>[\w.]+(?:Error|Exception): .+))$", re.MULTILINE)
_GONE = "Error while sending a command"  # of a query, to the Python part of its driver, which has ended before
_END = re.compile(r"^(\S+ \S+),\d+ \w+ (exited|stopped): (\S+) ", re.MULTILINE)
_SPAWN = re.compile(r"^(\S+ \S+) \w+ spawned: '\S+' with pid (\d+)$", re.MULTILINE)


def troubles(env: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong with each part of a running stack that is not well, by its name."""
    return _docker_troubles(env) if env["STACK"] == "docker" else _local_troubles(env)


def last_word(log: str) -> str:
    r"""Return the line of a log in which a program said last why it ended, or an empty text.

    >>> last_word("ready\nError: topic t was made anew\nready\n")
    'topic t was made anew'
    """
    found = [each for each in _LAST_WORD.finditer(log) if not each[0].rpartition("Reason: ")[2].startswith(_GONE)]
    return (found[-1]["told"] or found[-1]["raised"]) if found else ""


def ended(how: str, log: str) -> str:
    """Return what is said of a part that has ended, and why by its log."""
    word = last_word(log)
    return f"{how}; " + (f"its last error: {word}" if word else "its log does not say why")


def unhealthy(output: str) -> str:
    """Return the reason in what a health check has printed, be it `fedstream.stack.health` or any other program."""
    return output.strip().rpartition(" is not ready: ")[2] or "its health check fails without a word"


# --- local runner


def _local_troubles(env: Mapping[str, str]) -> dict[str, str]:
    run_path = Path(env["RUN_PATH"])
    if not processes.supervisords(run_path):
        lost = "runs on, though supervisord has ended: make down ends it, and make up starts all anew"
        return dict.fromkeys(processes.left_over(run_path).values(), lost)
    ends = count_ends((run_path / "logs" / "supervisord.log").read_text(errors="replace"), datetime.now())
    found = {}
    for process in supervised(env):
        name, uptime = process["name"], process["now"] - process["start"]
        runs = process["statename"] == "RUNNING"
        is_done = process["statename"] == "EXITED" and process["exitstatus"] == 0
        if ends.get(name, 0) >= MANY_ENDS and not (is_done or (runs and uptime >= JUST_STARTED_SECONDS)):
            found[name] = ended(MANY.format(ends[name]), health.log_end(name, env, LOG_LINES))
        elif process["statename"] in ("BACKOFF", "FATAL", "EXITED") and process["exitstatus"] != 0:
            found[name] = ended("ended", health.log_end(name, env, LOG_LINES))
        elif (runs or name in SERVICES) and (reason := _not_ready(name, uptime, env)):
            found[name] = reason
    return found


def supervised(env: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what supervisord says of each process of the local runner."""
    from supervisor.xmlrpc import SupervisorTransport  # the local runner has it

    transport = SupervisorTransport(None, None, serverurl=f"unix://{env['RUN_PATH']}/supervisor.sock")
    with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as server:
        found: Any = server.supervisor.getAllProcessInfo()
    return list(found)


def count_ends(supervisord_log: str, now: datetime, within: timedelta = LATELY) -> dict[str, int]:
    """Return how often each process has ended by itself lately, since it was last stopped on purpose."""
    ends: dict[str, int] = {}
    for at, how, name in _END.findall(supervisord_log):
        if now - datetime.fromisoformat(at) <= within:
            ends[name] = ends.get(name, 0) + 1 if how == "exited" else 0
    return ends


def spawned_at(supervisord_log: str, pid: int) -> float:
    """Return when supervisord started a process, in seconds since 1970; infinity if its log does not say."""
    times = [at for at, number in _SPAWN.findall(supervisord_log) if int(number) == pid]
    return datetime.fromisoformat(times[-1]).timestamp() if times else math.inf


def _not_ready(name: str, uptime: float, env: Mapping[str, str]) -> str:
    try:
        health.check(SERVICES.get(name, name), env)
    except health.StartingError as error:
        return str(error) if uptime >= START_SECONDS else ""
    except health.NotReadyError as error:
        return str(error)
    except ValueError:  # nothing can be asked of it
        return ""
    return ""


# --- Docker


def _docker_troubles(env: Mapping[str, str]) -> dict[str, str]:
    project = f"label=com.docker.compose.project={env['COMPOSE_PROJECT_NAME']}"
    names = _output("docker", "ps", "-aq", "--filter", project).split()
    said = _docker_progress(env)
    says = {f"{env['CONTAINER_PREFIX']}{each['job']}": jobs.trouble_of(each, time.time()) for each in said}
    form = "{{.Name}}\t{{.State.Status}}\t{{.State.ExitCode}}\t{{.RestartCount}}\t{{.State.StartedAt}}"
    form += "\t{{with .State.Health}}{{.Status}}{{end}}"
    found = {}
    for line in _output("docker", "inspect", "--format", form, *names).splitlines() if names else ():
        name, status, code, ends, started_at, condition = line.removeprefix("/").split("\t")
        started = datetime.fromisoformat(re.sub(r"\.\d+Z$|Z$", "+00:00", started_at))
        uptime = (datetime.now(timezone.utc) - started).total_seconds()  # noqa: UP017 - an old Python has no UTC
        is_well = status == "running" and (condition == "healthy" or uptime >= JUST_STARTED_SECONDS)
        if int(ends) >= MANY_ENDS and not is_well:
            found[name] = ended(MANY.format(ends), _docker_log(name))
        elif status in ("exited", "dead", "restarting") and code not in STOPPED_CODES:
            found[name] = ended(status, _docker_log(name))
        elif status == "paused":
            found[name] = f"is paused; go on with: docker unpause {name}"
        elif status != "running":
            continue  # it was stopped; the engine keeps what its last health check has said
        elif condition == "unhealthy":
            checks = json.loads(_output("docker", "inspect", "--format", "{{json .State.Health.Log}}", name))
            found[name] = unhealthy(checks[-1]["Output"])
        elif is_well and condition != "starting":
            trouble = says.get(name)  # the engine's next check will find it, too
            if trouble := trouble or _silent_outside(name.removeprefix(env["CONTAINER_PREFIX"]), env):
                found[name] = trouble
    return found


def _silent_outside(part: str, env: Mapping[str, str]) -> str:
    try:
        health.check_from_outside(part, env)
    except health.NotReadyError as error:
        causes = "its network is cut, this machine is too busy, or it was started with other ports than those here"
        return f"{error}, though all is well inside: {causes}"
    return ""


def _docker_log(name: str) -> str:
    return _output("docker", "logs", "--tail", str(LOG_LINES), name)


# --- how far the jobs are


def progress_table(env: Mapping[str, str]) -> str:
    """Return how far each job is that is to run, and how often it was started again, as a table."""
    restarts = _docker_restarts(env) if env["STACK"] == "docker" else _local_restarts(env)
    if env["STACK"] == "docker":
        found = _docker_progress(env)
    else:
        found = list(filter(None, (jobs.read_progress(Path(env["CHECKPOINT_DIR"]), job) for job in sorted(restarts))))
    return jobs.table([each for each in found if each["job"] in restarts], restarts)


def _docker_progress(env: Mapping[str, str]) -> list[jobs.Progress]:
    """Return what each driver has said last; nothing while no job has run yet, or the master does not answer."""
    script = "for file in $CHECKPOINT_DIR/running/*.json; do cat $file; echo; done"
    command = ["docker", "exec", f"{env['CONTAINER_PREFIX']}spark-master", "sh", "-c", script]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return []
    return [json.loads(line) for line in done.stdout.splitlines() if line]


def _local_restarts(env: Mapping[str, str]) -> dict[str, int]:
    """Return how often each job that is to run was started again since it was last started on purpose."""
    run_path = Path(env["RUN_PATH"])
    if not processes.supervisords(run_path):
        return {}
    log = (run_path / "logs" / "supervisord.log").read_text(errors="replace")
    ends = count_ends(log, datetime.now(), timedelta.max)
    return {each["name"]: ends.get(each["name"], 0) for each in supervised(env) if each["statename"] != "STOPPED"}


def _docker_restarts(env: Mapping[str, str]) -> dict[str, int]:
    """Return the same of the containers; the engine counts anew when one is started on purpose."""
    chosen = f"label=com.docker.compose.project={env['COMPOSE_PROJECT_NAME']}"
    names = _output("docker", "ps", "-q", "--filter", chosen, "--filter", "label=fedstream.job").split()
    found = _output("docker", "inspect", "--format", "{{.Name}} {{.RestartCount}}", *names) if names else ""
    counts = (line.split() for line in found.splitlines())
    return {name.removeprefix("/").removeprefix(env["CONTAINER_PREFIX"]): int(count) for name, count in counts}


def _output(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30, check=True)
    return done.stdout


def main() -> None:
    """Print how far the jobs are, and a line for each part that is not well."""
    if table := progress_table(os.environ):
        print(f"\n{table}\n")
    for name, trouble in troubles(os.environ).items():
        print(f"  FAIL  {name}: {trouble}")


if __name__ == "__main__":
    main()
