"""Which requests of the journal still matter: those whose effect nothing later undid.

An object of S3 that was overwritten or deleted needs none of the requests that made it, and a
deleted bucket none of its own. Everything that is not surely undone is kept: versioned buckets
whole, other services whole, what was copied for as long as the copy lives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import unescape
from urllib.parse import unquote

from cloudft.endpoint.moto.replay_log_record import LoggedRequest, S3Write, parse_s3_write

FREEZING_PARAMETERS = {"versioning", "object-lock", "notification", "replication", "versionid"}
"""Query parameters after which a bucket is kept whole: what is deleted there leaves a trace."""
OBJECT_LOCK_HEADER = "HTTP_X_AMZ_BUCKET_OBJECT_LOCK_ENABLED"
APPEND_HEADER = "HTTP_X_AMZ_WRITE_OFFSET_BYTES"
DELETED_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)


@dataclass
class ObjectHistory:
    """The requests that made one object as it is.

    While `copies` (requests that read it) live, what it was before stays in `earlier`.
    """

    current: list[int] = field(default_factory=list)
    earlier: list[int] = field(default_factory=list)
    copies: set[int] = field(default_factory=set)


@dataclass
class BucketHistory:
    """One bucket. Nothing is dropped from one that is `frozen`."""

    own_requests: list[int] = field(default_factory=list)
    objects: dict[str, ObjectHistory] = field(default_factory=dict)
    uploads: dict[str, list[int]] = field(default_factory=dict)
    is_frozen: bool = False

    def get_object(self, key: str) -> ObjectHistory:
        """Return the object of that key, known or not."""
        return self.objects.setdefault(key, ObjectHistory())

    def forget_deleted(self, keys: Iterable[str]) -> None:
        """Keep no record of objects that left nothing."""
        for key in keys:
            if self.objects.get(key) == ObjectHistory():
                del self.objects[key]


class CompactionTracker:
    """Follows the journal's requests in their order. `dead` are the numbers not needed any more."""

    def __init__(self) -> None:
        self.dead: set[int] = set()
        self._buckets: dict[str, BucketHistory] = {}
        self._sources: dict[int, ObjectHistory] = {}
        self._is_disabled = False

    def add(self, number: int, line: LoggedRequest) -> None:
        """Take the next request, which moto has taken."""
        if self._is_disabled:
            return
        try:
            write = parse_s3_write(line.environ)
        except ValueError:  # it may have changed any bucket: drop nothing from here on
            self._is_disabled = True
            return
        if write is None:
            return
        bucket = self._buckets.setdefault(write.bucket, BucketHistory())
        if write.parameters & FREEZING_PARAMETERS or OBJECT_LOCK_HEADER in line.environ:
            bucket.is_frozen = True
        self._is_disabled = "replication" in write.parameters
        if bucket.is_frozen:
            self._track_copy_source(number, write)
        elif write.key:
            self._track_object_request(number, line, write, bucket)
        else:
            self._track_bucket_request(number, line, write, bucket)

    def _track_bucket_request(
        self, number: int, line: LoggedRequest, write: S3Write, bucket: BucketHistory
    ) -> None:
        """Take a request for a bucket as a whole."""
        if write.method == "DELETE" and not write.parameters:
            self._delete_bucket(number, write.bucket, bucket)
        elif write.method == "POST" and "delete" in write.parameters:
            self._delete_objects(number, line, bucket)
        elif write.method == "POST":  # a browser's form: its key is in the body
            bucket.is_frozen = True
        else:
            bucket.own_requests.append(number)

    def _delete_objects(self, number: int, line: LoggedRequest, bucket: BucketHistory) -> None:
        keys = [unescape(found.decode()) for found in DELETED_KEY.findall(line.body)]
        objects = [bucket.get_object(key.encode().decode("latin-1")) for key in keys]
        if all(stored.current and not stored.copies for stored in objects):
            self.dead.add(number)
        else:  # one of them comes back, for a copy or from elsewhere
            bucket.own_requests.append(number)
        for stored in objects:
            self._replace_object(stored, [])
        bucket.forget_deleted(key.encode().decode("latin-1") for key in keys)

    def _delete_bucket(self, number: int, name: str, bucket: BucketHistory) -> None:
        if any(stored.copies or stored.earlier for stored in bucket.objects.values()):
            bucket.is_frozen = True
            return
        for stored in bucket.objects.values():
            self._drop(stored.current)
        for lines in bucket.uploads.values():
            self._drop(lines)
        self._drop([*bucket.own_requests, number])
        del self._buckets[name]

    def _track_object_request(
        self, number: int, line: LoggedRequest, write: S3Write, bucket: BucketHistory
    ) -> None:
        """Take a request for an object."""
        stored = bucket.get_object(write.key)
        if write.parameters & {"uploads", "uploadid", "partnumber"}:
            self._track_multipart_request(number, line, write, bucket)
        elif write.parameters or APPEND_HEADER in line.environ or write.method == "POST":
            (stored.current or bucket.own_requests).append(number)  # its tags, say
        elif write.method == "DELETE":
            self._delete_object(number, write.key, bucket)
        elif write.source == (write.bucket, write.key):
            stored.current.append(number)
        else:
            self._replace_object(stored, [number])
            self._track_copy_source(number, write)

    def _delete_object(self, number: int, key: str, bucket: BucketHistory) -> None:
        stored = bucket.get_object(key)
        known = bool(stored.current)
        if self._replace_object(stored, []):
            stored.earlier.append(number)
        elif known:
            self.dead.add(number)
        else:  # another service of moto may have made it
            bucket.own_requests.append(number)
        bucket.forget_deleted([key])

    def _track_multipart_request(
        self, number: int, line: LoggedRequest, write: S3Write, bucket: BucketHistory
    ) -> None:
        query = line.environ.get("QUERY_STRING", "")
        found = re.search(r"uploadId=([^&]+)", query, re.IGNORECASE)
        identifier = unquote(found[1]) if found else line.upload
        if identifier is None or (found and identifier not in bucket.uploads):
            bucket.is_frozen = True
            return
        lines = bucket.uploads.setdefault(identifier, [])
        lines.append(number)
        self._track_copy_source(number, write)
        if write.method == "DELETE":
            self._drop(bucket.uploads.pop(identifier))
        elif write.method == "POST" and found:
            self._replace_object(bucket.get_object(write.key), bucket.uploads.pop(identifier))

    def _replace_object(self, stored: ObjectHistory, lines: list[int]) -> bool:
        """Let an object be what `lines` make; return whether its past is kept for a copy."""
        if stored.copies:
            stored.earlier += stored.current
        else:
            self._drop(stored.current)
        stored.current = lines
        return bool(stored.copies)

    def _track_copy_source(self, number: int, write: S3Write) -> None:
        """Keep what a request copies from for as long as the request is kept."""
        if write.source is not None:
            bucket, key = write.source
            source = self._buckets.setdefault(bucket, BucketHistory()).get_object(key)
            source.copies.add(number)
            self._sources[number] = source

    def _drop(self, numbers: Iterable[int]) -> None:
        waiting = list(numbers)
        while waiting:
            number = waiting.pop()
            self.dead.add(number)
            source = self._sources.pop(number, None)
            if source is not None:
                source.copies.discard(number)
                if not source.copies:
                    waiting += source.earlier
                    source.earlier = []
