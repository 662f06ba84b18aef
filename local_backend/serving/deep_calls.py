"""Call what recurses deeply in compiled code, which no recursion limit of Python's ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Value = TypeVar("Value")


def call_with_stack(call: Callable[[], Value], stack_bytes: int) -> Value:
    """Return what a call returns, or raise what it raises, in a thread with a stack of that size.

    A stack that overflows would end the whole process.
    """
    result: Future[Value] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except Exception as error:
            result.set_exception(error)
        except BaseException as error:  # a panic of Rust: to those who catch Exception, no end
            result.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))

    usual = threading.stack_size(stack_bytes)
    try:
        thread = threading.Thread(target=run, name="deep-call")
        thread.start()
    finally:
        threading.stack_size(usual)
    thread.join()
    return result.result()
