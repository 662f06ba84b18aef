"""Keep moto's state beyond the process: record requests, and replay them at the next start.

moto has its state in memory only. A request that changes something is written to the log when moto
has accepted it, before the client gets the response. When the endpoint starts again, moto gets the
requests in their order. Requests whose effect was undone are left out (`replay_log_compaction`). A
line that can't be read, or that moto rejects, is moved to `moto-rejected.jsonl`, and the start
continues.

The process may be killed at any time: a line is complete, or its request was never acknowledged,
and the file is replaced in one step. Single lines are not synced to the disk: a power failure may
take the last seconds.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from cloudft.endpoint.moto.moto_app import seed_ids
from cloudft.endpoint.moto.replay_log_compaction import CompactionTracker
from cloudft.endpoint.moto.replay_log_record import (
    HEADER,
    READ_METHODS,
    LoggedRequest,
    decode_line,
    ec2_network_key,
    filter_environ,
    is_mutating,
    is_version_1,
)
from cloudft.endpoint.wsgi import (
    HEADER_NAMES_VARIABLE,
    WsgiResponse,
    buffer_body,
    call_wsgi_app,
    header_names,
)
from cloudft.errors import BadDocument
from cloudft.storage.atomic_files import as_store_error, fsync_folder

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOG_FILE = "moto.jsonl"
REJECTED_FILE = "moto-rejected.jsonl"
BASE_SEED = 20_260_101
"""Added to the number of a request, the seed of its ids.

moto makes ids at random. With a seed for each request, the replay makes the same ones, whatever
was read in between.
"""
SNS_PUBLISH = re.compile(rb"Action=Publish|AmazonSNS\.Publish")
"""Requests that moto gets while another one runs.

moto delivers the message before it answers, and the subscriber's address may be this endpoint.
"""
UPLOAD_ID = re.compile(rb"<UploadId>([^<]+)</UploadId>")
UPLOAD_ID_SEARCH_BYTES = 4_096
"""Bytes of a response that are searched for the id of a multipart upload."""
MAX_WARNINGS = 5
"""Rejected lines that are named one by one."""
MIN_DEAD_BYTES = 1 << 20
"""Bytes of unneeded lines, at least, before the file is compacted while the endpoint serves."""


@dataclass(frozen=True)
class LinePosition:
    """The position of a line in the file, in bytes; the length includes the end of line."""

    offset: int
    length: int


@dataclass(frozen=True)
class RejectedLine:
    """A line that is moved out of the log. `number` counts from 1."""

    number: int
    reason: str
    content: bytes


class ReplayLog:
    """WSGI middleware around moto that records its requests in `folder`; None records nothing.

    `warn` gets sentences for the user. Raises StoreError if the folder can't be used, and
    BadDocument for a log of another version.
    """

    def __init__(
        self,
        moto: WSGIApplication,
        folder: Path | None,
        warn: Callable[[str], object] = print,
    ) -> None:
        self._moto = moto
        self._warn = warn
        # The first lock keeps the file in the order of moto's effects, the second one protects the
        # file and what is known of it. SNS_PUBLISH takes the second alone.
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
            with as_store_error("the log of moto's requests can't be used", self._file):
                self._load()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Return moto's response, once an accepted request is recorded. Raises StoreError."""
        if not self._is_enabled:
            return self._moto(environ, start_response)
        network = ec2_network_key(environ)
        creates_network = network is not None and network not in self._networks
        body = b"" if environ["REQUEST_METHOD"] in READ_METHODS else buffer_body(environ)
        if not creates_network and not is_mutating(environ, body):
            return self._moto(environ, start_response)
        target = environ.get("HTTP_X_AMZ_TARGET", "").encode()
        is_publish = SNS_PUBLISH.match(body) or SNS_PUBLISH.match(target)
        with contextlib.nullcontext() if is_publish else self._request_lock:
            response = self._forward_and_record(environ, body, creates_network=creates_network)
        start_response(response.status_line, response.headers)
        return [response.body]

    def _forward_and_record(
        self, environ: WSGIEnvironment, body: bytes, *, creates_network: bool
    ) -> WsgiResponse:
        with self._file_lock:
            self._seed += 1
            request = LoggedRequest(filter_environ(environ), body, self._seed)
            request.header_names = header_names(environ)
        seed_ids(BASE_SEED + request.seed)
        response = call_wsgi_app(self._moto, environ)
        # A rejected request changed nothing, but a network came into being all the same.
        if response.status < 400 or creates_network:
            request.status, request.upload = response.status, _upload_id(response)
            with as_store_error("the log of moto's requests can't be written", self._file):
                self._append(request)
        return response

    def _append(self, request: LoggedRequest) -> None:
        content = msgspec.json.encode(request) + b"\n"
        with self._file_lock:
            stream = self._stream
            assert stream is not None
            # An earlier write may have failed halfway, on a full disk: its rest would damage this
            # line.
            if stream.seek(0, os.SEEK_END) != self._size:
                stream.truncate(self._size)
            _write_all(stream, content)
            self._account_for(request, LinePosition(self._size, len(content)))
            self._size += len(content)
            # A compaction copies fewer bytes than it removes: in the long run it costs less than
            # the writes did.
            if self._dead_size > max(MIN_DEAD_BYTES, self._size // 2):
                # Without it the file is longer, and says the same.
                with contextlib.suppress(OSError):
                    self._compact()

    def _account_for(self, request: LoggedRequest, position: LinePosition) -> None:
        """Record a line of the file as live, and the lines that it makes unneeded as dead."""
        self._count += 1
        self._live_lines[self._count] = position
        self._seed = max(self._seed, request.seed)
        network = ec2_network_key(request.environ)
        if network is not None:
            self._networks.add(network)
        self._compaction.add(self._count, request)
        while self._compaction.dead:
            self._dead_size += self._live_lines.pop(self._compaction.dead.pop()).length

    def _compact(self) -> None:
        """Replace the file by one without unneeded lines. Raises OSError."""
        with self._file.open("rb") as old:
            lines = (_read_at(old, position) for position in self._live_lines.values())
            stream, positions = _rewrite_file(self._file, lines)
        self._use_stream(stream)
        self._live_lines = dict(zip(self._live_lines, positions, strict=True))

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def _use_stream(self, stream: BinaryIO) -> None:
        self.close()
        self._stream = stream
        self._size, self._dead_size = stream.seek(0, os.SEEK_END), 0

    def _load(self) -> None:
        """Replay the file, and leave one with the lines that are needed and can be read."""
        for leftover in self._file.parent.glob(f".{LOG_FILE}.*"):  # a kill during a compaction
            leftover.unlink(missing_ok=True)
        rejected: list[RejectedLine] = []
        if self._file.exists() and is_version_1(_first_lines(self._file), self._file):
            stream, _ = _rewrite_file(self._file, self._convert_version_1(rejected))
            stream.close()
            self._scan([])
        elif self._file.exists():
            # Twice through the file: only at its end is it known which lines are needed.
            self._scan(rejected)
            self._replay(rejected)
        # Rejected lines are in their own file before they leave this one.
        if rejected:
            self._write_rejected(rejected)
        size = len(HEADER) + sum(position.length for position in self._live_lines.values())
        if self._file.exists() and self._file.stat().st_size == size:
            self._use_stream(self._file.open("ab", buffering=0))
        else:
            stream, positions = _rewrite_file(self._file, self._live_content())
            self._use_stream(stream)
            self._live_lines = dict(zip(self._live_lines, positions, strict=True))

    def _live_content(self) -> Iterator[bytes]:
        if self._live_lines:
            with self._file.open("rb") as old:
                yield from (_read_at(old, position) for position in self._live_lines.values())

    def _read_lines(
        self, rejected: list[RejectedLine]
    ) -> Iterator[tuple[int, LinePosition, LoggedRequest]]:
        """Yield the requests of the file; append lines that can't be read to `rejected`."""
        offset = 0
        with self._file.open("rb") as stream:
            for number, content in enumerate(stream, start=1):
                position = LinePosition(offset, len(content))
                offset += len(content)
                # A last line without its end was cut off by a kill, and never acknowledged.
                if content == HEADER or not content.endswith(b"\n"):
                    continue
                try:
                    yield number, position, decode_line(content, self._file)
                except BadDocument as error:
                    field = f" ({error.field})" if error.field else ""
                    rejected.append(RejectedLine(number, error.message + field, content))

    def _scan(self, rejected: list[RejectedLine]) -> None:
        for _, position, request in self._read_lines(rejected):
            self._account_for(request, position)

    def _replay(self, rejected: list[RejectedLine]) -> None:
        """Give moto the requests of the needed lines; append those it rejects to `rejected`."""
        replayer = Replayer(self._moto)
        live = {position.offset: number for number, position in self._live_lines.items()}
        for number, position, request in self._read_lines([]):
            if position.offset not in live:
                continue
            try:
                status = replayer.replay(request).status
                is_rejected, reason = request.status < 400 <= status, f"moto rejected it: {status}"
            except Exception as error:
                is_rejected, reason = True, f"moto failed at it: {type(error).__name__}"
            if is_rejected:
                del self._live_lines[live[position.offset]]
                with self._file.open("rb") as stream:
                    rejected.append(RejectedLine(number, reason, _read_at(stream, position)))

    def _convert_version_1(self, rejected: list[RejectedLine]) -> Iterator[bytes]:
        """Replay a log of version 1; yield the lines of version 2 for the accepted requests."""
        replayer = Replayer(self._moto)
        for number, position, request in self._read_lines(rejected):
            network = ec2_network_key(request.environ)
            creates_network = network is not None and network not in self._networks
            request.seed = number
            try:
                response = replayer.replay(request)
            except Exception as error:  # as it did when the line was written
                reason = f"moto failed at it: {type(error).__name__}"
                with self._file.open("rb") as stream:
                    rejected.append(RejectedLine(number, reason, _read_at(stream, position)))
                continue
            request.status, request.upload = response.status, _upload_id(response)
            is_accepted = response.status < 400 and is_mutating(request.environ, request.body)
            if creates_network or is_accepted:
                self._networks |= {network} if network else set()
                yield msgspec.json.encode(request) + b"\n"

    def _write_rejected(self, rejected: Sequence[RejectedLine]) -> None:
        """Append lines to the file of rejected lines, unless they are in it, and warn the user."""
        file = self._file.with_name(REJECTED_FILE)
        known = set(file.read_bytes().splitlines(keepends=True)) if file.exists() else set()
        with file.open("ab") as stream:
            stream.writelines(line.content for line in rejected if line.content not in known)
            stream.flush()
            os.fsync(stream.fileno())
        for line in rejected[:MAX_WARNINGS]:
            self._warn(f"{self._file}, line {line.number}: {line.reason}")
        more = f" (and {len(rejected) - MAX_WARNINGS} more)" if len(rejected) > MAX_WARNINGS else ""
        self._warn(f"these lines{more} were moved to {file}; everything else was restored")


class Replayer:
    """Sends recorded requests to moto."""

    def __init__(self, moto: WSGIApplication) -> None:
        from werkzeug.test import create_environ

        self._moto = moto
        self._environ = create_environ()

    def replay(self, request: LoggedRequest) -> WsgiResponse:
        """Return moto's response, with the ids of the recorded request's own response."""
        seed_ids(BASE_SEED + request.seed)
        size = str(len(request.body))
        body = {"CONTENT_LENGTH": size, "wsgi.input": io.BytesIO(request.body)}
        names = {HEADER_NAMES_VARIABLE: request.header_names}
        return call_wsgi_app(self._moto, {**self._environ, **request.environ, **body, **names})


def _upload_id(response: WsgiResponse) -> str | None:
    """Return the id of the multipart upload that a response begins; None for other responses."""
    match = UPLOAD_ID.search(response.body[:UPLOAD_ID_SEARCH_BYTES])
    return match[1].decode() if match and b"InitiateMultipart" in response.body else None


def _first_lines(file: Path) -> list[bytes]:
    with file.open("rb") as stream:
        return [line for line in (stream.readline(), stream.readline()) if line.endswith(b"\n")]


def _read_at(stream: BinaryIO, position: LinePosition) -> bytes:
    stream.seek(position.offset)
    return stream.read(position.length)


def _write_all(stream: BinaryIO, content: bytes) -> None:
    """Write to an unbuffered stream, which may take only a part at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[stream.write(rest) :]


def _rewrite_file(file: Path, lines: Iterable[bytes]) -> tuple[BinaryIO, list[LinePosition]]:
    """Replace the log in one step; return it, open for appending, and its lines' positions."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    positions, offset = [], len(HEADER)
    try:
        with os.fdopen(descriptor, "wb") as written:
            written.write(HEADER)
            for line in lines:
                written.write(line)
                positions.append(LinePosition(offset, len(line)))
                offset += len(line)
            written.flush()
            os.fsync(written.fileno())
        # Opened before the rename: if this fails, the old file is still the log.
        stream = Path(temporary).open("ab", buffering=0)  # noqa: SIM115 (the caller closes it)
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    # The file is replaced: an error here must not make the caller keep writing to the old one.
    with contextlib.suppress(OSError):
        fsync_folder(file.parent)
    return stream, positions
