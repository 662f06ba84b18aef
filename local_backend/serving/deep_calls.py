"""Call what takes long and recurses deeply in compiled code, beside the engine's steps.

No recursion limit of Python's ends such a recursion, and a stack that overflows would end the whole
process.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

Value = TypeVar("Value")
NICENESS = 10
"""Of the threads: the steps of the answers under way come first where cores are few."""


@dataclass(order=True)
class _Call:
    """A call that waits. Of two, the one of less size is made first."""

    size: int
    number: int
    call: Callable[[], Any] = field(compare=False)
    result: Future[Any] = field(compare=False)


class DeepCalls:
    """Makes calls in at most `threads` threads, each with a stack of `stack_bytes`.

    The threads are started by the first calls, and remain. Use it in one thread.
    """

    def __init__(self, threads: int, stack_bytes: int) -> None:
        self._most, self._stack_bytes = threads, stack_bytes
        self._started = 0
        self._numbers = itertools.count()
        self._waiting: queue.PriorityQueue[_Call] = queue.PriorityQueue()

    def submit(self, call: Callable[[], Value], size: int) -> Future[Value]:
        """Return what will have the result of a call; until it is made, it can be canceled.

        `size` is about how long it takes, in any unit: a short one does not wait for long ones that
        have not begun.
        """
        result: Future[Value] = Future()
        self._waiting.put(_Call(size, next(self._numbers), call, result))
        if self._started < self._most:
            self._started += 1
            self._start_thread()
        return result

    def _start_thread(self) -> None:
        usual = threading.stack_size(self._stack_bytes)
        try:
            threading.Thread(target=self._run, name="deep-calls", daemon=True).start()
        finally:
            threading.stack_size(usual)

    def _run(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while True:
            one = self._waiting.get()
            if not one.result.set_running_or_notify_cancel():
                continue
            try:
                one.result.set_result(one.call())
            except Exception as error:
                one.result.set_exception(error)
            except BaseException as error:  # a panic of Rust: to those who catch Exception, no end
                one.result.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
