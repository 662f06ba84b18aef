"""Tokenize records with the local model's tokenizer, in a child process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from cloudft.errors import TrainerError


def tokenize_lines(
    request: Mapping[str, object], lines: Iterable[bytes], environment: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the facts of the model, then a reply for each line.

    The replies are defined in local_backend/data/tokenize_records.py. Lines are consumed in another
    thread as the child reads them. Raise TrainerError, and what `lines` raises.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "local_backend.data.tokenize_records"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        start_new_session=True,
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        noise: list[bytes] = []
        errors = child.stderr
        broken: list[Exception] = []
        workers = [
            threading.Thread(target=_feed, args=(child, request, lines, broken), daemon=True),
            threading.Thread(target=lambda: noise.extend(errors), daemon=True),
        ]
        for worker in workers:
            worker.start()
        try:
            for line in child.stdout:
                reply = orjson.loads(line)
                if "error" in reply:
                    raise TrainerError(reply["error"], fix=reply["fix"])
                yield reply
            for worker in workers:
                worker.join()
            if broken:
                raise broken[0]
            if child.wait() != 0:
                last = noise[-1].decode("utf-8", "replace").strip() if noise else "no message"
                raise TrainerError(f"the tokenizer's process exited: {last}")
        finally:
            child.kill()


def _feed(
    child: subprocess.Popen[bytes],
    request: Mapping[str, object],
    lines: Iterable[bytes],
    broken: list[Exception],
) -> None:
    """Send the lines to the child; an error while reading them is appended to `broken`.

    A child that has exited is detected by its missing replies.
    """
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError), child.stdin as stdin:
        stdin.write(json.dumps(request).encode() + b"\n")
        try:
            for line in lines:
                stdin.write(line)
        except BrokenPipeError:
            raise
        except Exception as error:  # raised in the thread that waits for the replies
            broken.append(error)
