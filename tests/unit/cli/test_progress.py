"""The counter of records: after two seconds, in place on a terminal, as lines on a pipe."""

from __future__ import annotations

import sys

import pytest

from cloudft.cli import progress
from cloudft.cli.options import Console


def count_records(
    monkeypatch: pytest.MonkeyPatch, console: Console, *, is_terminal: bool, seconds: int = 1
) -> None:
    """Report four counts, with so many seconds between two readings of the clock."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    clock = iter(range(0, 1000, seconds))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.record_counter(console) as report:
        for records in (1000, 2000, 3000, 1234567):
            report(records)


def test_a_terminal_shows_a_counter_after_two_seconds_and_clears_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count_records(monkeypatch, Console("text", 0), is_terminal=True)
    shown = capsys.readouterr().err
    assert "1,000" not in shown, "not in the first two seconds"
    assert shown.endswith("reading: 1,234,567 records\r\033[K")


def test_a_pipe_gets_a_line_every_five_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count_records(monkeypatch, Console("text", 0), is_terminal=False)
    assert capsys.readouterr().err == "reading: 3,000 records\n", "one line in five seconds"
    count_records(monkeypatch, Console("text", 0), is_terminal=False, seconds=6)
    assert capsys.readouterr().err.count("\n") == 4


def test_quiet_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count_records(monkeypatch, Console("text", -1), is_terminal=True)
    assert capsys.readouterr().err == ""
