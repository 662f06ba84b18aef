"""An HTTP server that lets the answers under way end before it ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from cloudft.serving.engine import Engine

END_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class PatientServer(uvicorn.Server):
    """Runs until a signal and the end of the answers of then, or until its engine has ended.

    It returns after a signal; uvicorn's own would end the process with it. `on_end` is called with
    the first signal. After a second one `force_exit` is true: answers were cut off.
    """

    def __init__(
        self, config: uvicorn.Config, engine: Engine, on_end: Callable[[], object]
    ) -> None:
        super().__init__(config)
        self._engine, self._on_end = engine, on_end

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end: an engine that has ended answers nothing any more."""
        return await super().on_tick(counter) or not self._engine.is_alive

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while the server runs, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in END_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End when the answers have ended; at the second signal now."""
        if self.should_exit:
            self.force_exit = True
            return
        self.should_exit = True
        self._on_end()
