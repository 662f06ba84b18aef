"""Find what is private in many texts on several cores.

`python -m cloudft.data.analysis.pii_workers` is one worker: it reads lists of texts from standard
input and writes their matches, both pickled, until standard input ends. multiprocessing is no
choice here, for the reason in checks/parallel_check.py.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from cloudft.data.analysis.pii_scan import Matches, find_in_texts
from cloudft.data.sources.file_parts import count_cores
from cloudft.data.sources.source_files import SourceFile

MIN_BYTES = 16 * 1024 * 1024
"""Bytes of data from which workers are worth their start: a third of a second of a core each."""
MAX_WORKERS = 6
"""Reading and parsing keep one core busy while so many others search."""


class ScanPool:
    """Processes that search texts; a thread for each waits for its answers."""

    def __init__(self, workers: int) -> None:
        self.max_pending = 2 * workers
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="scan")
        self._own = threading.local()
        self._processes: list[subprocess.Popen[bytes]] = []

    def submit(self, texts: Sequence[str], *, here: bool = False) -> Future[Matches]:
        """Return a future of what is private in the texts; with `here` this thread searches."""
        if not here:
            return self._threads.submit(self._search, texts)
        done: Future[Matches] = Future()
        done.set_result(find_in_texts(texts))
        return done

    def _search(self, texts: Sequence[str]) -> Matches:
        try:
            process = self._process()
            assert process.stdin is not None and process.stdout is not None
            pickle.dump(texts, process.stdin)
            process.stdin.flush()
            matches: Matches = pickle.load(process.stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            return find_in_texts(texts)  # the process could not start, or was killed
        return matches

    def _process(self) -> subprocess.Popen[bytes]:
        """Return the process of this thread."""
        if not hasattr(self._own, "process"):
            self._own.process = subprocess.Popen(
                [sys.executable, "-m", "cloudft.data.analysis.pii_workers"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C goes to the parent alone, which ends this one
            )
            self._processes.append(self._own.process)
        process: subprocess.Popen[bytes] = self._own.process
        return process

    def close(self) -> None:
        """End the processes and the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
        self._threads.shutdown()
        for process in self._processes:
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with contextlib.suppress(OSError):
                    stream.close()


@contextlib.contextmanager
def open_scan_pool(sources: Sequence[SourceFile]) -> Iterator[ScanPool | None]:
    """Yield a pool for large files, where there is more than one core; else None."""
    size = 0
    for source in sources:
        with contextlib.suppress(OSError):  # an object in S3, or a file that is gone
            size += source.path.stat().st_size
    workers = min(count_cores(), MAX_WORKERS)
    if size < MIN_BYTES or workers < 2:
        yield None
        return
    pool = ScanPool(workers)
    try:
        yield pool
    finally:
        pool.close()


def main() -> None:
    """Search until standard input ends."""
    # Unpickled is what the process that started this one has written.
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            pickle.dump(find_in_texts(pickle.load(requests)), answers)
            answers.flush()


if __name__ == "__main__":
    main()
