"""Keep the indexes of files that pages show: built in the background, kept for the next time."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cloudft.data.record_index import FileChanged, RecordIndex
from cloudft.storage.atomic_files import atomic_write, make_private_folder

MAX_OPEN = 8
"""Files whose indexes are in memory at once: 1 MiB each at most."""
PIECES_AT_ONCE = 8
PAUSE_S = 0.001
"""Seconds between two groups of pieces, in which pages are answered."""
SAVE_INTERVAL_S = 5.0
CHANGED = (
    "The file was replaced or changed while it was shown. Lines are now those of the file that"
    " is there now."
)


@dataclass
class OpenIndex:
    """The index of a file, and how far it is. `notice` says that an earlier one was dropped."""

    index: RecordIndex
    notice: str = ""
    is_complete: bool = False
    error: str = ""
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    @property
    def share(self) -> float:
        """Return how much of the file is indexed, from 0 to 1."""
        try:
            size = self.index.path.stat().st_size
        except OSError:
            return 1.0
        return min(1.0, self.index.size / size) if size else 1.0


class IndexKeeper:
    """The indexes of one workbench, by path. `folder` is where they are kept."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._open: OrderedDict[Path, OpenIndex] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, path: Path, wait_s: float = 0.0) -> OpenIndex:
        """Return the index of a file, which grows in the background; wait for it a while.

        A file that has grown is indexed on; one that was replaced gets a new index with a notice.
        Raise OSError.
        """
        with self._lock:
            entry = self._open.get(path) or self._load(path)
            entry = self._checked(entry)
            self._open[path] = entry
            self._open.move_to_end(path)
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)[1].stop.set()
            if entry.thread is None or not entry.thread.is_alive():
                self._start(entry)
        assert entry.thread is not None
        entry.thread.join(wait_s)
        return entry

    def close(self) -> None:
        """End the threads."""
        with self._lock:
            for entry in self._open.values():
                entry.stop.set()
            self._open.clear()

    def _load(self, path: Path) -> OpenIndex:
        with contextlib.suppress(OSError):
            index = RecordIndex.from_bytes(self._kept_file(path).read_bytes(), path)
            if index is not None:
                return OpenIndex(index)
        return OpenIndex(RecordIndex.of_file(path))

    def _checked(self, entry: OpenIndex) -> OpenIndex:
        try:
            entry.index.open().close()
        except FileChanged:
            entry.stop.set()
            return OpenIndex(RecordIndex.of_file(entry.index.path), CHANGED)
        return entry

    def _start(self, entry: OpenIndex) -> None:
        size = entry.index.path.stat().st_size
        entry.is_complete = size == entry.index.size
        target = _do_nothing if entry.is_complete else self._build
        entry.thread = threading.Thread(target=target, args=(entry,), daemon=True)
        entry.thread.start()

    def _build(self, entry: OpenIndex) -> None:
        saved = self._clock()
        try:
            with entry.index.open() as handle:
                while not entry.stop.is_set():
                    is_end = entry.index.extend(handle, PIECES_AT_ONCE)
                    if is_end or self._clock() - saved > SAVE_INTERVAL_S:
                        self._save(entry.index)
                        saved = self._clock()
                    if is_end:
                        entry.is_complete = True
                        return
                    time.sleep(PAUSE_S)
        except (OSError, FileChanged) as error:  # the next page says so
            entry.error = str(error)

    def _save(self, index: RecordIndex) -> None:
        # A home that is full or read-only: the index is built again next time.
        with contextlib.suppress(OSError):
            path = self._kept_file(index.path)
            make_private_folder(path.parent)
            atomic_write(path, index.to_bytes())

    def _kept_file(self, path: Path) -> Path:
        name = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return self._folder / f"{name}.lines"


def _do_nothing(_entry: OpenIndex) -> None:
    """Return at once: there is nothing left to index."""
