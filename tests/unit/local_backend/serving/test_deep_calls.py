"""Calls with a large stack return and raise as any other; later threads are as before."""

from __future__ import annotations

import threading

import pytest

from local_backend.serving.deep_calls import DeepCalls

STACK_BYTES = 64 << 20


def test_a_call_returns_its_value_and_raises_its_error() -> None:
    before = threading.stack_size()
    calls = DeepCalls(2, STACK_BYTES)
    assert calls.submit(lambda: 7, 1).result() == 7
    with pytest.raises(ZeroDivisionError):
        calls.submit(lambda: 1 // 0, 1).result()
    assert threading.stack_size() == before


def test_a_panic_is_caught_where_exceptions_are() -> None:
    class Panic(BaseException):
        """As pyo3 raises them."""

    def call() -> None:
        raise Panic("index out of bounds")

    with pytest.raises(RuntimeError, match="Panic: index out of bounds"):
        DeepCalls(1, STACK_BYTES).submit(call, 1).result()


def test_of_the_calls_that_wait_the_short_ones_come_first_and_canceled_ones_never() -> None:
    calls, gate, made = DeepCalls(1, STACK_BYTES), threading.Event(), list[str]()
    calls.submit(gate.wait, 1)
    waiting = [
        calls.submit(lambda name=name: made.append(name), size)  # type: ignore[misc]
        for name, size in (("long", 9), ("canceled", 1), ("short", 2), ("short too", 2))
    ]
    waiting[1].cancel()
    gate.set()
    waiting[0].result()
    assert made == ["short", "short too", "long"]
