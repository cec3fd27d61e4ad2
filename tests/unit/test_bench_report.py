"""The tables of the bench: each figure in its place, medians with their spread, and what is missing and why."""

from __future__ import annotations

import re
from typing import Any

import pytest


@pytest.fixture(scope="module")
def report(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "bench"))
        import report

        yield report


def load(rate: float, p95: float | None, **more: Any) -> dict[str, Any]:
    """Return a section of a load as the bench records it."""
    section = {"wanted_per_second": rate, "reached_per_second": rate - 1, "is_share": False, "state": "done"}
    section |= {"p50": 1.0, "p95": p95, "p99": 30.0, "max": 40.0, "cpu_seconds_per_million": 12.0}
    return section | {"memory_mb": 700, "mean_batch_ms": None} | more


def run(
    contestant: str, repetition: int, per_second: float | None, *loads: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """Return a turn as the bench records it; 1,000 results were checked, half of them while catching up."""
    checks = {"checked": 500, "lost": 0, "duplicated": 0, "wrong": 0}
    catch_up = checks | {"per_second": per_second, "cpu_seconds_per_million": 9.0, "memory_mb": 800, "complete": True}
    entry = {"workload": "squares", "contestant": contestant, "repetition": repetition, "start_seconds": 7.0}
    entry |= {"warm_up_seconds": 30.0}
    return entry | checks | {"catch_up": catch_up, "loads": list(loads)} | more


def results(*runs: dict[str, Any]) -> dict[str, Any]:
    """Return the results of a bench."""
    machine = {"cores": 2, "processor": "X", "memory_gb": 8, "system": "Linux"}
    versions = {"spark": "4.2.0", "confluent-kafka": "2.12", "orjson": "3.13", "broker": "3.9.2", "Python": "3.11"}
    ceilings = [{"workload": "squares", "per_second": 2_000_000.0, "messages": 10}]
    about = {"plan": "quick", "runner": "local", "started": "today", "machine": machine, "versions": versions}
    return about | {"ceiling": ceilings, "runs": list(runs)}


def row_of(lines: list[str], title: str) -> list[str]:
    """Return the cells of the only row that begins with the title."""
    (line,) = [line for line in lines if line.startswith(f"| {title} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_row_of_the_reports_table_shows_median_and_spread(report):
    # p95 of 3, 5 and 10 ms: median 5.
    runs = [run("real-time", number, 1e5, load(1000, p95)) for number, p95 in ((1, 10.0), (2, 3.0), (3, 5.0))]
    lines = report.report_table(results(*runs), "squares")
    assert row_of(lines, "p95 latency (ms)") == ["830", "5 (3–10)"]
    assert row_of(lines, "maximum throughput (msg/s)") == ["112", "100,000 (100,000–100,000)"]
    assert row_of(lines, "mean micro-batch (s)") == ["0.45", "-"]


def test_figures_are_those_of_the_reference_load(report):
    lines = report.report_table(results(run("micro-batch", 1, 5.0, load(112, 7.0), load(1000, 9.0))), "squares")
    assert row_of(lines, "p95 latency (ms)") == ["830", "9"]


def test_the_warm_up_of_each_is_told(report):
    runs = [run("real-time", 1, 5.0, load(1000, 9.0)), run("confluent", 1, 5.0, load(1000, 9.0), warm_up_seconds=5)]
    lines = report.remarks(results(*runs), "squares")
    assert "- Warm-up at 1,000 msg/s before the loads: real-time 30 s, confluent 5 s." in lines


def test_the_mean_batch_is_shown_in_seconds(report):
    entry = run("micro-batch", 1, 5.0, load(1000, 9.0, mean_batch_ms=250.0))
    assert row_of(report.report_table(results(entry), "squares"), "mean micro-batch (s)") == ["0.45", "0.250"]


def test_the_error_rate_counts_lost_and_wrong_over_all_runs_but_no_duplicates(report):
    # 2 runs of 1,000 checked results, 1 lost and 1 wrong: 0.1 %. Poisson's bound of 2 errors is 6.3: 0.31 % of 2,000.
    bad = run("real-time", 2, 1e5, load(1000, 5.0), lost=1, wrong=1, duplicated=3)
    lines = report.report_table(results(run("real-time", 1, 1e5, load(1000, 5.0)), bad), "squares")
    assert row_of(lines, "error rate") == ["0.02 %", "0.1 % (2 of 2,000; < 0.31 %)"]
    assert row_of(lines, "duplicates") == ["-", "3"]


def test_each_contestant_has_its_own_column_and_version(report):
    lines = report.report_table(
        results(run("confluent", 1, 2.0, load(1000, 4.0)), run("real-time", 1, 1.0, load(1000, 8.0))), "squares"
    )
    assert row_of(lines, "at 1,000 msg/s") == ["report, as printed", "real-time", "confluent"]
    assert row_of(lines, "p95 latency (ms)") == ["830", "8", "4"]
    assert row_of(lines, "version") == ["-", "spark 4.2.0", "confluent-kafka 2.12 + orjson 3.13"]


def test_a_load_that_was_too_much_is_marked(report):
    entry = run("confluent", 1, 2.0, load(1000, 4.0), load(10_000, 9000.0, state="behind"))
    lines = [line for line in report.load_table(results(entry), "squares") if line.startswith("| confluent")]
    assert [re.split(r"\s*\|\s*", line)[-2] for line in lines] == ["yes", "behind"]


def test_what_is_missing_is_explained(report):
    entry = run("confluent", 1, None, load(1000, 4.0))
    text = "\n".join(report.remarks(results(entry), "squares"))
    assert "confluent: no mean batch, since it does not work in micro-batches." in text
    assert "confluent: no throughput, since all results came at one time." in text
    assert "2,000,000 msg/s" in text


def test_what_an_intervals_end_costs_is_told(report):
    ends = {"end_share": 0.04, "end_max": 1200.0, "p99_with_end": 900.0}
    text = "\n".join(report.remarks(results(run("real-time", 1, 5.0, load(1000, 3.0, **ends))), "squares"))
    assert "offsets are committed every 30 s" in text
    assert "4.0 % of the load, the longest wait 1,200 ms; p99 with them 900 ms." in text


def test_a_load_without_an_intervals_end_says_so(report):
    text = "\n".join(report.remarks(results(run("real-time", 1, 5.0, load(1000, 3.0))), "squares"))
    assert "no load here lasts that long" in text


@pytest.mark.parametrize(("looks", "is_told"), [([900, 950, 960, 1000], False), ([900, 950, 960, 1000, 1000], True)])
def test_memory_of_a_long_back_log_is_told(report, looks, is_told):
    entry = run("micro-batch", 1, 5.0, load(1000, 3.0))
    entry["catch_up"]["memory_looks_mb"] = looks
    text = "\n".join(report.remarks(results(entry), "squares"))
    told = "micro-batch: memory while catching up, looked at every 3 s: 900, 950, 960, 1,000, 1,000 MB."
    assert (told in text) == is_told


def test_a_resumed_run_names_all_its_beginnings(report):
    told = report.conditions(results() | {"resumed": ["tomorrow", "later"]})
    assert "local runner, today, resumed tomorrow, resumed later: 2 cores" in told


def test_the_whole_text_names_clock_machine_and_runner(report):
    text = report.markdown({"squares": results(run("confluent", 1, 2.0, load(1000, 4.0)))})
    for words in ("LogAppendTime", "event time", "2 cores of X", "local runner", "broker 3.9.2", "### Squares"):
        assert words in text
    assert "### Weights" not in text


def test_the_terminal_shows_medians_alone_a_line_for_each_contestant(report, capsys):
    runs = [run("confluent", number, 1e5 * number, load(1000, 4.0 * number)) for number in (1, 2, 3)]
    report.show({"squares": results(*runs)}, report.Console(width=80))
    shown = capsys.readouterr().out
    (line,) = [line.split() for line in shown.splitlines() if line.strip().startswith("confluent")]
    assert line == ["confluent", "-", "8", "200,000", "0", "%", "1", "30", "40", "9.0", "800", "0"]
    assert "2 cores of X" in shown
    assert "confluent-kafka 2.12, orjson 3.13" in shown
    assert "…" not in shown
