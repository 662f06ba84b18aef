"""Curves of any length: read as they grow, cut by a resume, sampled, and reduced for a picture."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from workbench_jobs import falling_curve, train_line, validation_line

from cloudft.jobs.curves import growing_file, points, sampling
from cloudft.jobs.curves.columns import Column, CurveWindow, FileCurves
from cloudft.jobs.curves.decimation import LEAST_POINTS, decimate
from cloudft.jobs.curves.points import CurveKey

TRAINING, VALIDATION = CurveKey("loss", "train"), CurveKey("loss", "validation")
GERMAN = CurveKey("loss", "validation", "german")
VALUES = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=400)


@given(VALUES, st.integers(LEAST_POINTS, 60))
def test_what_is_drawn_has_every_peak_and_break_in_order(values: list[float], limit: int) -> None:
    curve = np.array(values, np.float64)
    chosen = decimate(curve, limit)
    assert len(chosen) <= limit
    assert (np.diff(chosen) > 0).all()
    drawn = curve[chosen]
    finite = curve[np.isfinite(curve)]
    if len(finite):
        assert np.nanmin(drawn[np.isfinite(drawn)]) == finite.min()
        assert np.nanmax(drawn[np.isfinite(drawn)]) == finite.max()
    assert np.isfinite(drawn).all() == np.isfinite(curve).all()
    if len(curve):
        assert chosen[0] == 0 and chosen[-1] == len(curve) - 1
    if len(curve) <= limit:
        assert len(chosen) == len(curve)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=80), st.integers(1, 9))
def test_a_step_that_is_taken_again_replaces_the_steps_behind_it(
    steps: list[int], size: int
) -> None:
    column, expected = Column(), {}
    for begin in range(0, len(steps), size):
        part = steps[begin : begin + size]
        column.extend(part, [float(begin + n) for n in range(len(part))])
    for number, step in enumerate(steps):
        expected = {old: value for old, value in expected.items() if old < step}
        expected[step] = float(number)
    assert dict(column.drawn_points(CurveWindow())) == expected


def test_a_window_has_a_point_on_each_side() -> None:
    column = Column()
    column.extend(range(1, 101), [float(n) for n in range(1, 101)])
    assert [x for x, _ in column.drawn_points(CurveWindow(10.5, 12))] == [10, 11, 12, 13]
    assert [x for x, _ in column.drawn_points(CurveWindow(99, None))] == [98, 99, 100]
    assert column.drawn_points(CurveWindow(500, 600)) == [(100, 100.0)]


def read(curves: FileCurves, key: CurveKey = TRAINING) -> list[tuple[int, float | None]]:
    curves.update()
    return curves.columns[key].drawn_points(CurveWindow()) if key in curves.columns else []


def test_each_line_is_read_once_and_a_half_written_one_later(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    curves = FileCurves(path)
    assert read(curves) == []
    line = train_line(1, 1.5)
    path.write_text(train_line(0, 2.0) + line[:30], "utf-8")
    assert read(curves) == [(1, 2.0)]
    assert curves.unread_bytes == 30
    path.write_text(train_line(0, 2.0) + line + validation_line(1, 9.0, "german"), "utf-8")
    assert read(curves) == [(1, 2.0), (2, 1.5)]
    assert read(curves, GERMAN) == [(2, 9.0)]
    assert GERMAN.name == "validation german" and TRAINING.name == "training"


@pytest.mark.parametrize("mark_bytes", [1, 1 << 20])
def test_a_resume_cuts_the_curve_and_continues_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark_bytes: int
) -> None:
    monkeypatch.setattr("cloudft.jobs.curves.columns.MARK_BYTES", mark_bytes)
    path = tmp_path / "metrics.jsonl"
    old = [train_line(n, 5.0, timestamp=f"2026-01-01T00:00:{n:02d}+00:00") for n in range(20)]
    path.write_text("".join(old), "utf-8")
    curves = FileCurves(path)
    assert len(read(curves)) == 20
    new = [train_line(n, 1.0, timestamp=f"2026-01-02T00:00:{n:02d}+00:00") for n in range(8, 30)]
    path.write_text("".join(old[:8] + new), "utf-8")  # longer than before: the size shows nothing
    got = read(curves)
    assert [x for x, _ in got] == list(range(1, 31))
    assert [y for _, y in got] == [5.0] * 8 + [1.0] * 22


def test_values_that_are_not_finite_stay_in_the_curve(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    losses = [1.0, math.nan, math.inf, -math.inf, 800.0]  # exp(800) is written as Infinity
    path.write_text("".join(train_line(n, loss) for n, loss in enumerate(losses)), "utf-8")
    assert read(FileCurves(path)) == [(1, 1.0), (2, None), (3, None), (4, None), (5, 800.0)]


def test_a_damaged_line_hides_no_other_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    damaged = '{"step": "x"}\nnot JSON\n' + '{"step": 1, "split": "test"}\n\xff\n'
    damaged += train_line(2**40, 1.0) + train_line(-1, 1.0) + train_line(1, 1.0, kl="abc")
    path.write_bytes((train_line(0, 1.0) + damaged + train_line(1, 2.0)).encode("latin-1"))
    curves = FileCurves(path)
    assert read(curves) == [(1, 1.0), (2, 2.0)]
    assert curves.unreadable == 7


def test_a_long_curve_is_sampled_without_reading_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(falling_curve(20_000), "utf-8")
    read_bytes = 0
    original = sampling.os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        nonlocal read_bytes
        read_bytes += size
        return original(descriptor, size, offset)

    monkeypatch.setattr(sampling.os, "pread", pread)
    found = [p for p in sampling.sample_points(path, 40) if p.split == "train"]
    assert read_bytes < path.stat().st_size / 10
    steps = [point.step for point in found]
    assert steps == sorted(set(steps)) and len(steps) >= 40
    assert steps[0] == 0 and steps[-1] >= 19_990
    assert max(b - a for a, b in pairwise(steps)) < 1000


def test_a_short_curve_is_sampled_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert sampling.sample_points(path, 40) == []
    path.write_text(falling_curve(100) + '{"step": 100, "spl', "utf-8")
    assert [p.step for p in sampling.sample_points(path, 40) if p.split == "train"] == [*range(100)]


@given(st.text("abc\n", max_size=60), st.integers(1, 9))
def test_blocks_are_whole_lines_of_any_size(content: str, size: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_text(content, "utf-8")
        file = growing_file.GrowingFile(path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(growing_file, "BLOCK_BYTES", size)
            blocks = list(file.read_blocks(growing_file.Position()))
        whole = content[: content.rfind("\n") + 1].encode()
        assert b"".join(block for block, _ in blocks) == whole
        assert all(block.endswith(b"\n") for block, _ in blocks)
        if blocks:
            assert blocks[-1][1].offset == len(whole)
            assert file.continues(blocks[-1][1])


def test_names_with_numbers_in_words_are_kept() -> None:
    line = validation_line(3, math.nan, "set: NaN, Infinity")
    found, unreadable = points.decode_points(line.encode())
    assert unreadable == 0
    assert found[0].validation_set == "set: NaN, Infinity" and found[0].loss == "NaN"
