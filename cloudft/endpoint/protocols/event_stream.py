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
STRING_HEADER_TYPE = 7
"""The header type of text."""


def encode_event(kind: str, content: Mapping[str, object]) -> bytes:
    """One event of that type, its content as JSON."""
    headers = {
        ":event-type": kind,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    return encode_message(headers, orjson.dumps(content))


def encode_message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message on the wire."""
    head = b"".join(_encode_header(name, value) for name, value in headers.items())
    lengths = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    start = lengths + _encode_crc(lengths)
    body = start + head + payload
    return body + _encode_crc(body)


def _encode_header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return (
        struct.pack("!B", len(key)) + key + struct.pack("!BH", STRING_HEADER_TYPE, len(text)) + text
    )


def _encode_crc(content: bytes) -> bytes:
    return struct.pack("!I", binascii.crc32(content))
