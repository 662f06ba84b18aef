"""Encode AWS's event streams (`application/vnd.amazon.eventstream`).

A message is a prelude (the length of the message and of its headers, and their CRC), the headers,
the payload, and a CRC of everything before it. Numbers are big-endian. Source: smithy.io, "Amazon
Event Stream Specification". botocore has the decoder only.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Mapping

import orjson

CONTENT_TYPE = "application/vnd.amazon.eventstream"
STRING_HEADER_TYPE = 7
"""The type code of a header whose value is text."""
FRAME_BYTES = 16
"""Bytes of a message beside its headers and payload: two lengths and two CRCs, 4 bytes each."""


def encode_event(kind: str, content: object) -> bytes:
    """Return an event of that type as a message, its content as JSON."""
    headers = {
        ":event-type": kind,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    return encode_message(headers, orjson.dumps(content))


def encode_exception(kind: str, message: str) -> bytes:
    """Return an error that ends a stream, by the name of the stream's member for it."""
    headers = {
        ":exception-type": kind,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return encode_message(headers, orjson.dumps({"message": message}))


def encode_message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return one message with these headers and this payload."""
    encoded = b"".join(_encode_header(name, value) for name, value in headers.items())
    total = FRAME_BYTES + len(encoded) + len(payload)
    lengths = struct.pack("!II", total, len(encoded))
    # The prelude has a CRC of its own: a reader checks the lengths before it trusts them.
    message = lengths + _encode_crc(lengths) + encoded + payload
    return message + _encode_crc(message)


def _encode_header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    lengths = struct.pack("!BH", STRING_HEADER_TYPE, len(text))
    # Name: one byte of length. Value: one byte of type, two bytes of length.
    return struct.pack("!B", len(key)) + key + lengths + text


def _encode_crc(content: bytes) -> bytes:
    return struct.pack("!I", binascii.crc32(content))
