"""Events as AWS streams them: `application/vnd.amazon.eventstream`.

Source: smithy.io, "Amazon Event Stream Specification": a prelude of two lengths and their CRC,
headers, the payload, and the CRC of all of it. botocore has the decoder only.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Mapping

import orjson

CONTENT_TYPE = "application/vnd.amazon.eventstream"
STRING = 7
"""The header type of text."""


def event(kind: str, content: Mapping[str, object]) -> bytes:
    """One event of that type, its content as JSON."""
    headers = {
        ":event-type": kind,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    return message(headers, orjson.dumps(content))


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message on the wire."""
    head = b"".join(_header(name, value) for name, value in headers.items())
    lengths = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    start = lengths + _crc(lengths)
    body = start + head + payload
    return body + _crc(body)


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return struct.pack("!B", len(key)) + key + struct.pack("!BH", STRING, len(text)) + text


def _crc(content: bytes) -> bytes:
    return struct.pack("!I", binascii.crc32(content))
