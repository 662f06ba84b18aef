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

from cloudft.endpoint.moto.moto_app import seed_ids
from cloudft.endpoint.moto.replay_log_compaction import CompactionTracker
from cloudft.endpoint.moto.replay_log_record import (
    HEADER,
    LoggedRequest,
    decode_line,
    ec2_network_key,
    filter_environ,
    is_version_1,
)
from cloudft.endpoint.wsgi import buffer_body
from cloudft.errors import BadDocument
from cloudft.storage.atomic_files import as_store_error, fsync_folder

Environ = dict[str, Any]
LOG_FILE = "moto.jsonl"
REJECTED_FILE = "moto-rejected.jsonl"
BASE_SEED = 20_260_101
"""moto makes its ids by chance: a seed for each request makes the same ones at the replay, whatever
was asked in between."""
READ_METHODS = {"GET", "HEAD", "OPTIONS"}
READ_ACTION = re.compile(rb"Action=(Get|List|Describe|Simulate)")
READ_TARGET = re.compile(r"[\w.]*\.(Get|List|Describe|BatchGet|Lookup)[A-Z]")
"""How requests of the query and of the JSON protocol begin that only read."""
SNS_PUBLISH = re.compile(rb"Action=Publish|AmazonSNS\.Publish")
"""Requests that moto takes beside others: it delivers while the client waits, perhaps to here."""
STEP_FUNCTIONS_PREFIX = "AWSStepFunctions."
RECORDED_STEP_FUNCTIONS_OPERATIONS = {
    "CreateStateMachine",
    "DeleteStateMachine",
    "UpdateStateMachine",
}
"""What is kept of Step Functions. An execution started once more would do its work once more."""
UPLOAD_ID = re.compile(rb"<UploadId>([^<]+)</UploadId>")
UPLOAD_ID_SEARCH_BYTES = 4_096
"""Bytes of an answer, of a few hundred, in which that id is."""
MAX_WARNINGS = 5
"""Lines that were set aside that are named one by one."""
SMALL = 1 << 20
"""Bytes that the file may hold in vain before it is compacted while the endpoint serves."""


@dataclass(frozen=True)
class LinePosition:
    """Where a line is in the file, its end of line included."""

    offset: int
    length: int


@dataclass(frozen=True)
class RejectedLine:
    """A line that is set aside. `number` counts from 1."""

    number: int
    reason: str
    content: bytes


class ReplayLog:
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
        self._request_lock, self._file_lock = threading.Lock(), threading.Lock()
        self._is_enabled = folder is not None
        self._file = (folder or Path()) / LOG_FILE
        self._seed = self._count = 0
        self._networks: set[str] = set()
        self._live_lines: dict[int, LinePosition] = {}
        self._compaction = CompactionTracker()
        self._stream: BinaryIO | None = None
        self._size = self._dead_size = 0
        if self._is_enabled:
            with as_store_error("the endpoint's journal can't be used", self._file):
                self._load()

    def __call__(self, environ: Environ, start: Callable[..., Any]) -> Any:
        """Let moto answer a request; note it when moto has taken it. Raises StoreError."""
        if not self._is_enabled:
            return self._moto(environ, start)
        network = ec2_network_key(environ)
        first = network is not None and network not in self._networks
        body = b"" if environ["REQUEST_METHOD"] in READ_METHODS else buffer_body(environ)
        if not first and not is_mutating(environ, body):
            return self._moto(environ, start)
        target = environ.get("HTTP_X_AMZ_TARGET", "").encode()
        beside = SNS_PUBLISH.match(body) or SNS_PUBLISH.match(target)
        with contextlib.nullcontext() if beside else self._request_lock:
            answer = self._forward_and_record(environ, body, first=first)
        start(answer.status_line, answer.headers)
        return [answer.body]

    def _forward_and_record(self, environ: Environ, body: bytes, *, first: bool) -> WsgiResponse:
        with self._file_lock:
            self._seed += 1
            line = LoggedRequest(filter_environ(environ), body, self._seed)
        seed_ids(BASE_SEED + line.seed)
        answer = call_wsgi_app(self._moto, environ)
        if answer.status < 400 or first:
            line.status, line.upload = answer.status, answer.upload_id
            with as_store_error("the endpoint's journal can't be written", self._file):
                self._append(line)
        return answer

    def _append(self, line: LoggedRequest) -> None:
        content = msgspec.json.encode(line) + b"\n"
        with self._file_lock:
            stream = self._stream
            assert stream is not None
            if stream.seek(0, os.SEEK_END) != self._size:  # a full disk broke off a line
                stream.truncate(self._size)
            _write_all(stream, content)
            self._account_for(line, LinePosition(self._size, len(content)))
            self._size += len(content)
            # A compaction copies less than it removes: it costs no more than the writing did.
            if self._dead_size > max(SMALL, self._size // 2):
                with contextlib.suppress(OSError):  # the longer file says the same
                    self._compact()

    def _account_for(self, line: LoggedRequest, entry: LinePosition) -> None:
        """Take a line of the file into account, and what it makes unnecessary."""
        self._count += 1
        self._live_lines[self._count] = entry
        self._seed = max(self._seed, line.seed)
        network = ec2_network_key(line.environ)
        if network is not None:
            self._networks.add(network)
        self._compaction.add(self._count, line)
        while self._compaction.dead:
            self._dead_size += self._live_lines.pop(self._compaction.dead.pop()).length

    def _compact(self) -> None:
        """Replace the file by one without the lines that are not needed. Raises OSError."""
        with self._file.open("rb") as old:
            lines = (_read_at(old, entry) for entry in self._live_lines.values())
            stream, entries = _rewrite_file(self._file, lines)
        self._open_stream(stream)
        self._live_lines = dict(zip(self._live_lines, entries, strict=True))

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def _open_stream(self, stream: BinaryIO) -> None:
        self.close()
        self._stream = stream
        self._size, self._dead_size = stream.seek(0, os.SEEK_END), 0

    def _load(self) -> None:
        """Give moto what the file holds; leave a file of what is needed and can be read."""
        for left in self._file.parent.glob(f".{LOG_FILE}.*"):  # by a kill
            left.unlink(missing_ok=True)
        rejected: list[RejectedLine] = []
        if self._file.exists() and is_version_1(_first_lines(self._file), self._file):
            stream, _ = _rewrite_file(self._file, self._convert_version_1(rejected))
            stream.close()
            self._scan([])
        elif self._file.exists():
            self._scan(rejected)
            self._replay(rejected)
        if rejected:
            self._write_rejected(rejected)
        size = len(HEADER) + sum(entry.length for entry in self._live_lines.values())
        if self._file.exists() and self._file.stat().st_size == size:
            self._open_stream(self._file.open("ab", buffering=0))
        else:
            stream, entries = _rewrite_file(self._file, self._live_content())
            self._open_stream(stream)
            self._live_lines = dict(zip(self._live_lines, entries, strict=True))

    def _live_content(self) -> Iterator[bytes]:
        if self._live_lines:
            with self._file.open("rb") as old:
                yield from (_read_at(old, entry) for entry in self._live_lines.values())

    def _read_lines(
        self, rejected: list[RejectedLine]
    ) -> Iterator[tuple[int, LinePosition, LoggedRequest]]:
        """Yield the requests of the file; what can't be read is `rejected`."""
        offset = 0
        with self._file.open("rb") as stream:
            for number, content in enumerate(stream, start=1):
                entry = LinePosition(offset, len(content))
                offset += len(content)
                if content == HEADER or not content.endswith(b"\n"):  # torn: never acknowledged
                    continue
                try:
                    yield number, entry, decode_line(content, self._file)
                except BadDocument as error:
                    where = f" ({error.field})" if error.field else ""
                    rejected.append(RejectedLine(number, error.message + where, content))

    def _scan(self, rejected: list[RejectedLine]) -> None:
        for _, entry, line in self._read_lines(rejected):
            self._account_for(line, entry)

    def _replay(self, rejected: list[RejectedLine]) -> None:
        """Give moto the lines that are needed."""
        replayed = Replayer(self._moto)
        live = {entry.offset: number for number, entry in self._live_lines.items()}
        for number, entry, line in self._read_lines([]):
            if entry.offset not in live:
                continue
            try:
                status = replayed(line).status
                refused, why = line.status < 400 <= status, f"moto refuses it: HTTP {status}"
            except Exception as error:  # moto fails at it
                refused, why = True, f"moto fails at it: {type(error).__name__}"
            if refused:
                del self._live_lines[live[entry.offset]]
                with self._file.open("rb") as stream:
                    rejected.append(RejectedLine(number, why, _read_at(stream, entry)))

    def _convert_version_1(self, rejected: list[RejectedLine]) -> Iterator[bytes]:
        """Replay a journal of version 1; yield its requests that moto took, in today's form."""
        replayed = Replayer(self._moto)
        for number, entry, line in self._read_lines(rejected):
            network = ec2_network_key(line.environ)
            first = network is not None and network not in self._networks
            line.seed = number
            try:
                answer = replayed(line)
            except Exception as error:  # moto fails at it, as it did then
                with self._file.open("rb") as stream:
                    why = f"moto fails at it: {type(error).__name__}"
                    rejected.append(RejectedLine(number, why, _read_at(stream, entry)))
                continue
            line.status, line.upload = answer.status, answer.upload_id
            if first or (answer.status < 400 and is_mutating(line.environ, line.body)):
                self._networks |= {network} if network else set()
                yield msgspec.json.encode(line) + b"\n"

    def _write_rejected(self, rejected: Sequence[RejectedLine]) -> None:
        """Move lines to the side file, once, and say so."""
        side = self._file.with_name(REJECTED_FILE)
        known = set(side.read_bytes().splitlines(keepends=True)) if side.exists() else set()
        with side.open("ab") as stream:
            stream.writelines(line.content for line in rejected if line.content not in known)
            stream.flush()
            os.fsync(stream.fileno())
        for line in rejected[:MAX_WARNINGS]:
            self._warn(f"{self._file}, line {line.number}: {line.reason}")
        more = f" (and {len(rejected) - MAX_WARNINGS} more)" if len(rejected) > MAX_WARNINGS else ""
        self._warn(f"these lines{more} are set aside in {side}; everything else is there")


class Replayer:
    """Gives moto requests of the journal."""

    def __init__(self, moto: Callable[..., Any]) -> None:
        from werkzeug.test import create_environ

        self._moto = moto
        self._environ = create_environ()

    def __call__(self, line: LoggedRequest) -> WsgiResponse:
        """Return moto's answer, with the ids that the first one had."""
        seed_ids(BASE_SEED + line.seed)
        size = str(len(line.body))
        given = {"CONTENT_LENGTH": size, "wsgi.input": io.BytesIO(line.body)}
        return call_wsgi_app(self._moto, {**self._environ, **line.environ, **given})


@dataclass(frozen=True)
class WsgiResponse:
    """What a WSGI application answered."""

    status_line: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self.status_line[:3])

    @property
    def upload_id(self) -> str | None:
        """The id of a multipart upload that was begun; None in any other answer."""
        found = UPLOAD_ID.search(self.body[:UPLOAD_ID_SEARCH_BYTES])
        return found[1].decode() if found and b"InitiateMultipart" in self.body else None


def call_wsgi_app(app: Callable[..., Any], environ: Environ) -> WsgiResponse:
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
    return WsgiResponse(*started[-1], body)


def is_mutating(environ: Mapping[str, Any], body: bytes) -> bool:
    """Return whether a request may change something that is kept."""
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target.startswith(STEP_FUNCTIONS_PREFIX):
        return target.removeprefix(STEP_FUNCTIONS_PREFIX) in RECORDED_STEP_FUNCTIONS_OPERATIONS
    return (
        environ["REQUEST_METHOD"] not in READ_METHODS
        and not READ_ACTION.match(body)
        and not READ_TARGET.match(target)
    )


def _first_lines(file: Path) -> list[bytes]:
    with file.open("rb") as stream:
        return [line for line in (stream.readline(), stream.readline()) if line.endswith(b"\n")]


def _read_at(stream: BinaryIO, entry: LinePosition) -> bytes:
    stream.seek(entry.offset)
    return stream.read(entry.length)


def _write_all(stream: BinaryIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[stream.write(rest) :]


def _rewrite_file(file: Path, lines: Iterable[bytes]) -> tuple[BinaryIO, list[LinePosition]]:
    """Write the journal anew, in one step; return it, to append to, and where its lines are."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    entries, offset = [], len(HEADER)
    try:
        with os.fdopen(descriptor, "wb") as written:
            written.write(HEADER)
            for line in lines:
                written.write(line)
                entries.append(LinePosition(offset, len(line)))
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
        fsync_folder(file.parent)
    return stream, entries
