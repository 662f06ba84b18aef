"""The counter of records: on a terminal, after a moment, and gone at the end."""

from __future__ import annotations

import sys

import pytest

from cloudft.cli import progress
from cloudft.cli.options import Console


@pytest.mark.parametrize("terminal", [True, False])
def test_a_counter_appears_on_a_terminal_alone_and_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    clock = iter(range(100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.record_counter(Console("text", 0)) as told:
        for count in (1000, 2000, 3000, 1234567):
            told(count)
    shown = capsys.readouterr().err
    if terminal:
        assert "1,000" not in shown, "not in the first two seconds"
        assert shown.endswith("reading: 1,234,567 records\r\033[K")
    else:
        assert shown == ""
