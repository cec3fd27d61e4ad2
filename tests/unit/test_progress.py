"""What a command that waits says meanwhile."""

from __future__ import annotations

import subprocess

from test_contracts import ROOT

from fedstream.stack.progress import Progress


class Terminal:
    """A stream and its clock: what was written, and a time that goes on by a second with each look."""

    def __init__(self, is_terminal: bool = False) -> None:
        """Begin with nothing written."""
        self.text = ""
        self.now = 100.0
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        """Tell."""
        return self.is_terminal

    def write(self, text: str) -> None:
        """Keep the text."""
        self.text += text

    def flush(self) -> None:
        """Do nothing."""

    def clock(self) -> float:
        """Go on."""
        self.now += 1
        return self.now


def test_where_there_is_no_terminal_a_line_is_added_every_ten_seconds():
    stream = Terminal()
    progress = Progress(stream, lambda: stream.now)
    for second in range(26):
        stream.now = 100.0 + second
        progress.waiting("cloud")
    progress.say("done")
    assert stream.text == "  waiting for cloud ... 10 s\n  waiting for cloud ... 20 s\ndone\n"


def test_in_a_terminal_one_line_is_brought_up_to_date():
    stream = Terminal(is_terminal=True)
    progress = Progress(stream, lambda: 100.0)
    progress.waiting("cloud")
    progress.say("done")
    erase = "\r\033[K"  # to the line's start, and clear it
    assert stream.text == f"{erase}  waiting for cloud ... 0 s{erase}done\n"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command behind deploy/progress.sh."""
    line = [str(ROOT / "deploy" / "progress.sh"), "a long step", *command]
    return subprocess.run(line, capture_output=True, text=True)


def test_a_step_that_succeeds_tells_its_time_only():
    done = run("bash", "-c", "echo noise; echo more noise >&2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in [f"==> a long step ...\n==> a long step: {seconds} s\n" for seconds in range(60)]


def test_a_step_that_fails_shows_what_it_printed_and_hands_its_exit_code_on():
    done = run("bash", "-c", "echo no such package >&2; exit 3")
    assert (done.returncode, done.stderr) == (3, "no such package\n")
    assert "a long step: failed after" in done.stdout
