"""The tables of the bench: each figure in its place, medians with their spread, and what is missing and why."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from bench.rivals import report


def run(contestant: str, repetition: int, per_second: float | None, p95: float | None, **more: Any) -> dict[str, Any]:
    """Return a turn as the bench records it; 1,000 results were checked, half of them while catching up."""
    checks = {"checked": 500, "lost": 0, "duplicated": 0, "wrong": 0}
    load = {"state": "done", "p50": 1.0, "p95": p95, "p99": 30.0, "max": 40.0, "mean_batch_ms": None}
    catch_up = checks | {"per_second": per_second, "cpu_seconds_per_million": 9.0, "memory_mb": 800, "complete": True}
    entry = {"workload": "squares", "contestant": contestant, "repetition": repetition, "start_seconds": 7.0}
    return entry | {"warm_up_seconds": 30.0} | checks | {"catch_up": catch_up, "load": load} | more


def results(*runs: dict[str, Any]) -> dict[str, Any]:
    """Return the results of a bench."""
    machine = {"cores": 2, "processor": "X", "memory_gb": 8, "system": "Linux"}
    versions = {"spark": "4.2.0", "confluent-kafka": "2.12", "Python": "3.11"}
    about = {"runner": "local", "started": "today", "commit": "abc", "machine": machine, "versions": versions}
    return about | {"ceiling": [2_000_000.0], "runs": list(runs)}


def figures(name: str, *runs: dict[str, Any]) -> dict[str, str]:
    """Return the cells of a contestant."""
    (found,) = (
        of_one for contestant, of_one in report.taking_part(results(*runs), "squares") if contestant.name == name
    )
    return report.figures(found)


def shown(measured: dict[str, Any]) -> str:
    """Return what the terminal shows."""
    console = Console(width=80)
    with console.capture() as captured:
        report.show(measured, console)
    return captured.get()


def test_a_cell_shows_the_median():
    # p95 of 3, 5 and 10 ms: median 5; of an even number the mean of the two in the middle.
    runs = [run("real-time", number, per_second, p95) for number, per_second, p95 in ((1, 1e5, 10.0), (2, 3e5, 3.0))]
    runs.append(run("real-time", 3, None, 5.0))
    cells = figures("real-time", *runs)
    assert (cells["p95 (ms)"], cells["most msg/s"], cells["batch (s)"]) == ("5", "200,000", "-")


def test_the_mean_batch_is_shown_in_seconds():
    entry = run("micro-batch", 1, 5.0, 9.0)
    entry["load"]["mean_batch_ms"] = 250.0
    assert figures("micro-batch", entry)["batch (s)"] == "0.250"


def test_the_error_rate_counts_lost_and_wrong_over_all_runs_but_no_duplicates():
    # 2 runs of 1,000 checked results, 1 lost and 1 wrong: 0.1 %.
    cells = figures(
        "real-time", run("real-time", 1, 1e5, 5.0), run("real-time", 2, 1e5, 5.0, lost=1, wrong=1, duplicated=3)
    )
    assert (cells["errors"], cells["checked"], cells["doubled"]) == ("0.1 %", "2,000", "3")


def test_each_contestant_has_a_line_and_the_report_the_first(capsys):
    report.show({"squares": results(run("confluent", 1, 2.0, 4.0), run("real-time", 1, 1.0, 8.0))}, Console(width=80))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    (printed,) = [line for line in lines if line[:4] == ["the", "report,", "as", "printed"]]
    assert printed[4:] == ["0.45", "830", "112", "0.02", "%", *["-"] * 8]
    (confluent,) = [line for line in lines if line[:1] == ["confluent"]]
    assert confluent[1:] == ["-", "4", "2", "0", "%", "1", "30", "40", "9.0", "800", "7.0", "1,000", "0"]


def test_what_is_missing_is_explained():
    late = run("confluent", 1, None, 4.0)
    late["load"]["state"], late["catch_up"]["complete"] = "behind", False
    text = "\n".join(report.remarks(results(late), "squares"))
    for words in ("no throughput", "did not keep up with the load", "did not end the back-log", "at 2,000,000 msg/s"):
        assert words in text
    assert "before the load: confluent 30 s." in text


def test_the_whole_text_names_clock_machine_commit_and_runner():
    text = shown({"squares": results(run("confluent", 1, 2.0, 4.0))})
    for words in ("LogAppendTime", "2 cores of X", "local runner", "commit abc", "confluent-kafka 2.12"):
        assert words in text


def test_a_headline_tells_speed_and_what_was_wrong():
    entry = run("confluent", 3, 2000.0, 4.0, lost=1)
    told = "3: squares by confluent: p50 1, p95 4 ms; 2,000 msg/s catching up; 1 lost, 0 duplicated, 0 wrong"
    assert report.headline(entry) == told
