"""Find the requests of the replay log whose effect a later request undid.

An object of S3 that was overwritten or deleted needs none of the requests that made it, and a
deleted bucket needs none of its own. Whatever is not certainly undone is kept: all requests for
versioned buckets and to other services, and the source of a copy for as long as the copy exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import unescape
from urllib.parse import unquote

from cloudft.endpoint.moto.replay_log_record import LoggedRequest, S3Write, parse_s3_write

FREEZING_PARAMETERS = {"versioning", "object-lock", "notification", "replication", "versionid"}
"""Query parameters of requests after which nothing of a bucket is dropped.

With versions or locks a deletion leaves something; a notification or a replication acts elsewhere.
"""
OBJECT_LOCK_HEADER = "HTTP_X_AMZ_BUCKET_OBJECT_LOCK_ENABLED"
APPEND_HEADER = "HTTP_X_AMZ_WRITE_OFFSET_BYTES"
DELETED_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)


@dataclass
class ObjectHistory:
    """The requests, by number, that made one object what it is.

    `copies` are the requests that copied it elsewhere and are still needed. As long as there are
    any, the requests that made an overwritten object stay in `earlier`.
    """

    current: list[int] = field(default_factory=list)
    earlier: list[int] = field(default_factory=list)
    copies: set[int] = field(default_factory=set)


@dataclass
class BucketHistory:
    """The requests, by number, that made one bucket. Nothing of a frozen bucket is dropped.

    `uploads` has the requests of unfinished multipart uploads, by the upload's id.
    """

    own_requests: list[int] = field(default_factory=list)
    objects: dict[str, ObjectHistory] = field(default_factory=dict)
    uploads: dict[str, list[int]] = field(default_factory=dict)
    is_frozen: bool = False

    def get_object(self, key: str) -> ObjectHistory:
        """Return the history of an object; an empty one if no request has written it."""
        return self.objects.setdefault(key, ObjectHistory())

    def forget_deleted(self, keys: Iterable[str]) -> None:
        """Remove the histories of deleted objects that no request is kept for."""
        for key in keys:
            if self.objects.get(key) == ObjectHistory():
                del self.objects[key]


class CompactionTracker:
    """Tracks the log's requests in their order. `dead` has the numbers of those not needed anymore.

    The caller takes them out of `dead`. Numbers count the requests from 1.
    """

    def __init__(self) -> None:
        self.dead: set[int] = set()
        self._buckets: dict[str, BucketHistory] = {}
        self._sources: dict[int, ObjectHistory] = {}
        self._is_disabled = False

    def add(self, number: int, line: LoggedRequest) -> None:
        """Track the next request that moto accepted."""
        if self._is_disabled:
            return
        try:
            write = parse_s3_write(line.environ)
        except ValueError:
            # It may have changed any bucket: nothing is dropped from here on.
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
        """Track a request for a bucket itself."""
        if write.method == "DELETE" and not write.parameters:
            self._delete_bucket(number, write.bucket, bucket)
        elif write.method == "POST" and "delete" in write.parameters:
            self._delete_objects(number, line, bucket)
        elif write.method == "POST":
            # A browser's form upload: the key is in its body, which is not parsed here.
            bucket.is_frozen = True
        else:
            bucket.own_requests.append(number)

    def _delete_objects(self, number: int, line: LoggedRequest, bucket: BucketHistory) -> None:
        """Track DeleteObjects: one request that deletes many keys."""
        names = [unescape(match.decode()) for match in DELETED_KEY.findall(line.body)]
        keys = [name.encode().decode("latin-1") for name in names]  # as paths have them
        objects = [bucket.get_object(key) for key in keys]
        if all(stored.current and not stored.copies for stored in objects):
            self.dead.add(number)
        else:
            # The replay makes one of the objects again, as the source of a copy, or another service
            # of moto may make it: this request has to delete it then.
            bucket.own_requests.append(number)
        for stored in objects:
            self._replace_object(stored, [])
        bucket.forget_deleted(keys)

    def _delete_bucket(self, number: int, name: str, bucket: BucketHistory) -> None:
        """Track DeleteBucket: S3 accepts it for an empty bucket only."""
        # The replay needs the bucket for the sources of copies.
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
        """Track a request for an object."""
        stored = bucket.get_object(write.key)
        if write.parameters & {"uploads", "uploadid", "partnumber"}:
            self._track_multipart_request(number, line, write, bucket)
        elif write.parameters or APPEND_HEADER in line.environ or write.method == "POST":
            # It changes a part of the object: its tags, or bytes at its end.
            (stored.current or bucket.own_requests).append(number)
        elif write.method == "DELETE":
            self._delete_object(number, write.key, bucket)
        elif write.source == (write.bucket, write.key):
            # A copy onto itself replaces the metadata, and needs what made the object.
            stored.current.append(number)
        else:
            self._replace_object(stored, [number])
            self._track_copy_source(number, write)

    def _delete_object(self, number: int, key: str, bucket: BucketHistory) -> None:
        stored = bucket.get_object(key)
        was_written = bool(stored.current)
        if self._replace_object(stored, []):
            # The replay makes the object for its copies, and has to delete it here.
            stored.earlier.append(number)
        elif was_written:
            self.dead.add(number)
        else:
            # Another service of moto may have written the object.
            bucket.own_requests.append(number)
        bucket.forget_deleted([key])

    def _track_multipart_request(
        self, number: int, line: LoggedRequest, write: S3Write, bucket: BucketHistory
    ) -> None:
        """Track a request of a multipart upload, which may begin, continue or end it."""
        query = line.environ.get("QUERY_STRING", "")
        parameter = re.search(r"uploadId=([^&]+)", query, re.IGNORECASE)
        # The first request has no id yet: its response had it.
        identifier = unquote(parameter[1]) if parameter else line.upload
        if identifier is None or (parameter and identifier not in bucket.uploads):
            bucket.is_frozen = True
            return
        lines = bucket.uploads.setdefault(identifier, [])
        lines.append(number)
        self._track_copy_source(number, write)
        if write.method == "DELETE":
            self._drop(bucket.uploads.pop(identifier))
        elif write.method == "POST" and parameter:
            self._replace_object(bucket.get_object(write.key), bucket.uploads.pop(identifier))

    def _replace_object(self, stored: ObjectHistory, lines: list[int]) -> bool:
        """Record that `lines` now make an object; return whether the earlier ones are kept."""
        if stored.copies:
            stored.earlier += stored.current
        else:
            self._drop(stored.current)
        stored.current = lines
        return bool(stored.copies)

    def _track_copy_source(self, number: int, write: S3Write) -> None:
        """Keep the source of a copy for as long as the copy is kept."""
        if write.source is not None:
            bucket, key = write.source
            source = self._buckets.setdefault(bucket, BucketHistory()).get_object(key)
            source.copies.add(number)
            self._sources[number] = source

    def _drop(self, numbers: Iterable[int]) -> None:
        """Drop requests, and then what was kept only because they copied it."""
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
