"""A call with a large stack returns and raises as any other; later threads are as before."""

from __future__ import annotations

import threading

import pytest

from local_backend.serving.deep_calls import call_with_stack

STACK_BYTES = 64 << 20


def test_a_call_returns_its_value_and_raises_its_error() -> None:
    before = threading.stack_size()
    assert call_with_stack(lambda: 7, STACK_BYTES) == 7
    with pytest.raises(ZeroDivisionError):
        call_with_stack(lambda: 1 // 0, STACK_BYTES)
    assert threading.stack_size() == before


def test_a_panic_is_caught_where_exceptions_are() -> None:
    class Panic(BaseException):
        """As pyo3 raises them."""

    def call() -> None:
        raise Panic("index out of bounds")

    with pytest.raises(RuntimeError, match="Panic: index out of bounds"):
        call_with_stack(call, STACK_BYTES)
