"""What moto was told, so that its state outlives the process: a journal that is replayed.

moto keeps everything in memory. A request that changes something is written down when moto has
taken it, before the client is answered; when the endpoint starts again, moto gets them in their
order. What later requests undid is left out of the file (`journal_compaction`). A line that can't
be read, or that moto refuses, is moved to `moto-rejected.jsonl`, and the start goes on.

The process may be killed at any time: a line is whole or was not acknowledged, and the file is
replaced in one step. Lines are not synced to the disk one by one: a power failure may take the last
seconds.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from cloudft.endpoint.journal_compaction import Compaction
from cloudft.endpoint.journal_line import (
    HEADER,
    JournalLine,
    is_version_1,
    kept_environ,
    network_of,
    read_line,
)
from cloudft.endpoint.moto_app import seed_ids
from cloudft.endpoint.wsgi import keep_body
from cloudft.errors import BadDocument
from cloudft.files import as_store_error, sync_folder

Environ = dict[str, Any]
FILE = "moto.jsonl"
REJECTED = "moto-rejected.jsonl"
SEED = 20_260_101
"""moto makes its ids by chance: a seed for each request makes the same ones at the replay, whatever
was asked in between."""
READS = {"GET", "HEAD", "OPTIONS"}
QUIET = re.compile(rb"Action=(Get|List|Describe|Simulate)")
QUIET_TARGET = re.compile(r"[\w.]*\.(Get|List|Describe|BatchGet|Lookup)[A-Z]")
"""How requests of the query and of the JSON protocol begin that only read."""
UNORDERED = re.compile(rb"Action=Publish|AmazonSNS\.Publish")
"""Requests that moto takes beside others: it delivers while the client waits, perhaps to here."""
MACHINES = "AWSStepFunctions."
OF_MACHINES = {"CreateStateMachine", "DeleteStateMachine", "UpdateStateMachine"}
"""What is kept of Step Functions. An execution started once more would do its work once more."""
UPLOAD = re.compile(rb"<UploadId>([^<]+)</UploadId>")
UPLOAD_WITHIN = 4_096
"""Bytes of an answer, of a few hundred, in which that id is."""
TOLD = 5
"""Lines that were set aside that are named one by one."""
SMALL = 1 << 20
"""Bytes that the file may hold in vain before it is compacted while the endpoint serves."""


@dataclass(frozen=True)
class Entry:
    """Where a line is in the file, its end of line included."""

    offset: int
    length: int


@dataclass(frozen=True)
class Rejected:
    """A line that is set aside. `number` counts from 1."""

    number: int
    reason: str
    content: bytes


class Journal:
    """A WSGI application around moto's. `folder` None: nothing is kept.

    `warn` gets a sentence for the user. Raises StoreError when the folder can't be used, and
    BadDocument for a journal of another version.
    """

    def __init__(
        self,
        moto: Callable[..., Any],
        folder: Path | None,
        warn: Callable[[str], object] = print,
    ) -> None:
        self._moto = moto
        self._warn = warn
        self._order, self._writing = threading.Lock(), threading.Lock()
        self._keeps = folder is not None
        self._file = (folder or Path()) / FILE
        self._seed = self._count = 0
        self._networks: set[str] = set()
        self._entries: dict[int, Entry] = {}
        self._compaction = Compaction()
        self._stream: BinaryIO | None = None
        self._size = self._dead_size = 0
        if self._keeps:
            with as_store_error("the endpoint's journal can't be used", self._file):
                self._start()

    def __call__(self, environ: Environ, start: Callable[..., Any]) -> Any:
        """Let moto answer a request; note it when moto has taken it. Raises StoreError."""
        if not self._keeps:
            return self._moto(environ, start)
        network = network_of(environ)
        first = network is not None and network not in self._networks
        body = b"" if environ["REQUEST_METHOD"] in READS else keep_body(environ)
        if not first and not changes(environ, body):
            return self._moto(environ, start)
        target = environ.get("HTTP_X_AMZ_TARGET", "").encode()
        beside = UNORDERED.match(body) or UNORDERED.match(target)
        with contextlib.nullcontext() if beside else self._order:
            answer = self._take(environ, body, first=first)
        start(answer.line, answer.headers)
        return [answer.body]

    def _take(self, environ: Environ, body: bytes, *, first: bool) -> Answer:
        with self._writing:
            self._seed += 1
            line = JournalLine(kept_environ(environ), body, self._seed)
        seed_ids(SEED + line.seed)
        answer = ask(self._moto, environ)
        if answer.status < 400 or first:
            line.status, line.upload = answer.status, answer.upload
            with as_store_error("the endpoint's journal can't be written", self._file):
                self._append(line)
        return answer

    def _append(self, line: JournalLine) -> None:
        content = msgspec.json.encode(line) + b"\n"
        with self._writing:
            stream = self._stream
            assert stream is not None
            if stream.seek(0, os.SEEK_END) != self._size:  # a full disk broke off a line
                stream.truncate(self._size)
            _write_all(stream, content)
            self._follow(line, Entry(self._size, len(content)))
            self._size += len(content)
            # A compaction copies less than it removes: it costs no more than the writing did.
            if self._dead_size > max(SMALL, self._size // 2):
                with contextlib.suppress(OSError):  # the longer file says the same
                    self._compact()

    def _follow(self, line: JournalLine, entry: Entry) -> None:
        """Take a line of the file into account, and what it makes unnecessary."""
        self._count += 1
        self._entries[self._count] = entry
        self._seed = max(self._seed, line.seed)
        network = network_of(line.environ)
        if network is not None:
            self._networks.add(network)
        self._compaction.add(self._count, line)
        while self._compaction.dead:
            self._dead_size += self._entries.pop(self._compaction.dead.pop()).length

    def _compact(self) -> None:
        """Replace the file by one without the lines that are not needed. Raises OSError."""
        with self._file.open("rb") as old:
            lines = (_read(old, entry) for entry in self._entries.values())
            stream, entries = _replace(self._file, lines)
        self._use(stream)
        self._entries = dict(zip(self._entries, entries, strict=True))

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def _use(self, stream: BinaryIO) -> None:
        self.close()
        self._stream = stream
        self._size, self._dead_size = stream.seek(0, os.SEEK_END), 0

    def _start(self) -> None:
        """Give moto what the file holds; leave a file of what is needed and can be read."""
        for left in self._file.parent.glob(f".{FILE}.*"):  # by a kill
            left.unlink(missing_ok=True)
        rejected: list[Rejected] = []
        if self._file.exists() and is_version_1(_first_lines(self._file), self._file):
            stream, _ = _replace(self._file, self._converted(rejected))
            stream.close()
            self._scan([])
        elif self._file.exists():
            self._scan(rejected)
            self._replay(rejected)
        if rejected:
            self._set_aside(rejected)
        size = len(HEADER) + sum(entry.length for entry in self._entries.values())
        if self._file.exists() and self._file.stat().st_size == size:
            self._use(self._file.open("ab", buffering=0))
        else:
            stream, entries = _replace(self._file, self._live())
            self._use(stream)
            self._entries = dict(zip(self._entries, entries, strict=True))

    def _live(self) -> Iterator[bytes]:
        if self._entries:
            with self._file.open("rb") as old:
                yield from (_read(old, entry) for entry in self._entries.values())

    def _lines(self, rejected: list[Rejected]) -> Iterator[tuple[int, Entry, JournalLine]]:
        """Yield the requests of the file; what can't be read is `rejected`."""
        offset = 0
        with self._file.open("rb") as stream:
            for number, content in enumerate(stream, start=1):
                entry = Entry(offset, len(content))
                offset += len(content)
                if content == HEADER or not content.endswith(b"\n"):  # torn: never acknowledged
                    continue
                try:
                    yield number, entry, read_line(content, self._file)
                except BadDocument as error:
                    where = f" ({error.field})" if error.field else ""
                    rejected.append(Rejected(number, error.message + where, content))

    def _scan(self, rejected: list[Rejected]) -> None:
        for _, entry, line in self._lines(rejected):
            self._follow(line, entry)

    def _replay(self, rejected: list[Rejected]) -> None:
        """Give moto the lines that are needed."""
        replayed = Replayed(self._moto)
        live = {entry.offset: number for number, entry in self._entries.items()}
        for number, entry, line in self._lines([]):
            if entry.offset not in live:
                continue
            try:
                status = replayed(line).status
                refused, why = line.status < 400 <= status, f"moto refuses it: HTTP {status}"
            except Exception as error:  # moto fails at it
                refused, why = True, f"moto fails at it: {type(error).__name__}"
            if refused:
                del self._entries[live[entry.offset]]
                with self._file.open("rb") as stream:
                    rejected.append(Rejected(number, why, _read(stream, entry)))

    def _converted(self, rejected: list[Rejected]) -> Iterator[bytes]:
        """Replay a journal of version 1; yield its requests that moto took, in today's form."""
        replayed = Replayed(self._moto)
        for number, entry, line in self._lines(rejected):
            network = network_of(line.environ)
            first = network is not None and network not in self._networks
            line.seed = number
            try:
                answer = replayed(line)
            except Exception as error:  # moto fails at it, as it did then
                with self._file.open("rb") as stream:
                    why = f"moto fails at it: {type(error).__name__}"
                    rejected.append(Rejected(number, why, _read(stream, entry)))
                continue
            line.status, line.upload = answer.status, answer.upload
            if first or (answer.status < 400 and changes(line.environ, line.body)):
                self._networks |= {network} if network else set()
                yield msgspec.json.encode(line) + b"\n"

    def _set_aside(self, rejected: Sequence[Rejected]) -> None:
        """Move lines to the side file, once, and say so."""
        side = self._file.with_name(REJECTED)
        known = set(side.read_bytes().splitlines(keepends=True)) if side.exists() else set()
        with side.open("ab") as stream:
            stream.writelines(line.content for line in rejected if line.content not in known)
            stream.flush()
            os.fsync(stream.fileno())
        for line in rejected[:TOLD]:
            self._warn(f"{self._file}, line {line.number}: {line.reason}")
        more = f" (and {len(rejected) - TOLD} more)" if len(rejected) > TOLD else ""
        self._warn(f"these lines{more} are set aside in {side}; everything else is there")


class Replayed:
    """Gives moto requests of the journal."""

    def __init__(self, moto: Callable[..., Any]) -> None:
        from werkzeug.test import create_environ

        self._moto = moto
        self._environ = create_environ()

    def __call__(self, line: JournalLine) -> Answer:
        """Return moto's answer, with the ids that the first one had."""
        seed_ids(SEED + line.seed)
        size = str(len(line.body))
        given = {"CONTENT_LENGTH": size, "wsgi.input": io.BytesIO(line.body)}
        return ask(self._moto, {**self._environ, **line.environ, **given})


@dataclass(frozen=True)
class Answer:
    """What a WSGI application answered."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self.line[:3])

    @property
    def upload(self) -> str | None:
        """The id of a multipart upload that was begun; None in any other answer."""
        found = UPLOAD.search(self.body[:UPLOAD_WITHIN])
        return found[1].decode() if found and b"InitiateMultipart" in self.body else None


def ask(app: Callable[..., Any], environ: Environ) -> Answer:
    """Return the whole answer of a WSGI application."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
        started.append((status, headers))

    parts = app(environ, start)
    try:
        body = b"".join(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    return Answer(*started[-1], body)


def changes(environ: Mapping[str, Any], body: bytes) -> bool:
    """Return whether a request may change something that is kept."""
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target.startswith(MACHINES):
        return target.removeprefix(MACHINES) in OF_MACHINES
    return (
        environ["REQUEST_METHOD"] not in READS
        and not QUIET.match(body)
        and not QUIET_TARGET.match(target)
    )


def _first_lines(file: Path) -> list[bytes]:
    with file.open("rb") as stream:
        return [line for line in (stream.readline(), stream.readline()) if line.endswith(b"\n")]


def _read(stream: BinaryIO, entry: Entry) -> bytes:
    stream.seek(entry.offset)
    return stream.read(entry.length)


def _write_all(stream: BinaryIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[stream.write(rest) :]


def _replace(file: Path, lines: Iterable[bytes]) -> tuple[BinaryIO, list[Entry]]:
    """Write the journal anew, in one step; return it, to append to, and where its lines are."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    entries, offset = [], len(HEADER)
    try:
        with os.fdopen(descriptor, "wb") as written:
            written.write(HEADER)
            for line in lines:
                written.write(line)
                entries.append(Entry(offset, len(line)))
                offset += len(line)
            written.flush()
            os.fsync(written.fileno())
        stream = Path(temporary).open("ab", buffering=0)  # noqa: SIM115 (the caller's)
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    with contextlib.suppress(OSError):  # it is replaced: whoever writes goes on in the new one
        sync_folder(file.parent)
    return stream, entries
