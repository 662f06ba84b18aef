"""Distinguish Windows-1252 from other encodings, and recognize UTF-16."""

from __future__ import annotations

import codecs
import re

_LONG_RUN = re.compile(rb"[\x80-\xff]{4}")
_CUT_LETTER = re.compile(rb"[\xc2\xc3](?![A-Za-z\x80-\xff])")
_UTF8_LETTER = re.compile(rb"[\xc3-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}")


def decode_windows_1252(raw: bytes) -> str | None:
    """Return bytes that are no UTF-8 as text of Windows-1252; None if they are no such text.

    Letters with accents are rare and stand alone in the languages that it is for. Long runs of them
    are another encoding, and so are bytes that it does not have; letters of UTF-8 among them are a
    text that was damaged, as is the first byte of one at the end of a word.
    """
    if any(pattern.search(raw) for pattern in (_LONG_RUN, _UTF8_LETTER, _CUT_LETTER)):
        return None
    try:
        return raw.decode("cp1252")
    except UnicodeDecodeError:
        return None


def detect_utf16(start: bytes) -> str | None:
    """Return the codec of a file that begins as UTF-16 does, with or without a byte order mark."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(start) >= 4 and start[0] and start[2] and start[1] == start[3] == 0:
        return "utf-16-le"
    if len(start) >= 4 and start[1] and start[3] and start[0] == start[2] == 0:
        return "utf-16-be"
    return None
