"""Answer many requests at once: `python -m local_backend.serving`; requests.py has the protocol."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from local_backend.grading.resident_memory import resident_bytes
from local_backend.job_dir import JobDir
from local_backend.lean_imports import allow_lean_imports, import_modeling
from local_backend.libraries import silence_libraries
from local_backend.process_exit import exit_now
from local_backend.replies import ReplyWriter
from local_backend.serving.batch import Batch, RunningAnswer
from local_backend.serving.models import load_models
from local_backend.serving.requests import (
    EngineLine,
    OpenRequest,
    Values,
    error_reply,
    preparation_error,
)
from local_backend.serving.tokenizing import describe_tokenizer, detokenize, tokenize
from local_backend.settings import read_settings

ROWS = 32
"""Answers made at once, if the request to open names no number."""


LOOK_S = 1.0
"""Seconds between looks at requests whose schema may take too long."""


class LineReader(threading.Thread):
    """Reads standard input in a thread of its own, so that no step waits for it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._lines: queue.SimpleQueue[EngineLine | None] = queue.SimpleQueue()
        self.has_ended = False

    def run(self) -> None:
        """Read until the input ends."""
        try:
            for line in sys.stdin.buffer:
                if line.strip():
                    value: EngineLine = json.loads(line)
                    value["received"] = time.monotonic()
                    self._lines.put(value)
        finally:  # also of a line that can't be read: its request would wait for good
            self._lines.put(None)

    def wake(self) -> None:
        """Let `take` return."""
        self._lines.put({})

    def take(self, wait_s: float | None) -> Iterator[EngineLine]:
        """Yield the lines that are there.

        If there is none, wait for one, for `wake` or for the end, `wait_s` at most (None: as long
        as it takes).
        """
        block = wait_s != 0
        while not self.has_ended:
            try:
                line = self._lines.get(block, wait_s)
            except queue.Empty:
                return
            block = False
            if line is None:
                self.has_ended = True
                return
            if line:
                yield line


class EngineProgram:
    """Takes lines between the steps of a batch."""

    def __init__(self, batch: Batch, reply: ReplyWriter) -> None:
        self.batch, self.reply = batch, reply
        self._answers: dict[str, RunningAnswer] = {}

    def take(self, line: EngineLine) -> None:
        """Do what a line says."""
        number = line["id"]
        try:
            if "submit" in line:
                self._submit(number, line)
            elif "cancel" in line:
                if number in self._answers:
                    self._answers[number].is_canceled = True
            else:
                self.reply({"id": number, **self._look(line)})
        except Exception as error:  # whatever it is, other requests go on
            self.reply({"id": number, **error_reply(preparation_error(error))})

    def _look(self, line: EngineLine) -> Values:
        """Return the reply to a line that nothing is generated for."""
        find = self.batch.find_model
        if "count" in line:
            return {"count": len(find(line["count"]["model"]).encode(line["count"]["prompt"]))}
        if "tokenize" in line:
            return {"ids": tokenize(find(line["tokenize"]["model"]), line["tokenize"])}
        if "detokenize" in line:
            return {"text": detokenize(find(line["detokenize"]["model"]), line["detokenize"])}
        if "tokenizer" in line:
            return {"tokenizer": describe_tokenizer(find(line["tokenizer"]["model"]))}
        return {"stats": {**self.batch.stats(), "residentBytes": resident_bytes(os.getpid())}}

    def _submit(self, number: str, line: EngineLine) -> None:
        def reply(values: Values) -> None:
            if "delta" not in values:
                self._answers.pop(number, None)
            self.reply({"id": number, **values})

        self._answers[number] = self.batch.submit(line["submit"], reply, line["received"])


def wait_time(batch: Batch) -> float | None:
    """Return how many seconds the next line is worth waiting for; None: as long as it takes."""
    if batch.is_empty:
        return None
    return LOOK_S if batch.is_idle else 0


def main() -> int:
    """Load the models, and answer until standard input ends."""
    with ReplyWriter() as reply:
        first: dict[str, OpenRequest] = json.loads(sys.stdin.buffer.readline())
        request = first["open"]
        import_modeling(read_settings(JobDir(Path(request["jobs"][0]["folder"]))))
        silence_libraries()
        models = load_models(request)
        lines = LineReader()
        batch = Batch(models, request.get("rows", ROWS), lines.wake)
        reply({"ready": True, "models": [model.reply for model in models]})
        program = EngineProgram(batch, reply)
        lines.start()
        with torch.inference_mode():
            while not lines.has_ended:
                for line in lines.take(wait_time(batch)):
                    program.take(line)
                if not batch.is_empty:
                    batch.step()
    return reply.status


if __name__ == "__main__":
    allow_lean_imports()
    try:
        status = main()
    except Exception:
        # Python's own end would wait for the thread that reads, and print that instead of this.
        traceback.print_exc()
        status = 1
    exit_now(status)
