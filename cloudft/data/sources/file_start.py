"""Recognize by its first bytes that a file is not what its name says, and how to get the data."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePath

from cloudft.data.sources.text_encoding import detect_utf16

FIX_COMMAND = "`cloudft check --fix DIR`"
LFS_POINTER = b"version https://git-lfs"
ARCHIVE_MAGIC = {
    b"\x1f\x8b": ("gzip", ""),
    b"BZh": ("bzip2", ""),
    b"\xfd7zXZ\0": ("xz", ""),
    b"PK\x03\x04": ("zip", "unzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d"),
}
"""How compressed files begin: the name, and the program where `check --fix` has none."""
_PAGE = re.compile(rb"\s*<(?:!doctype html|html|\?xml)", re.IGNORECASE)
_SIZE = re.compile(rb"\nsize (\d+)")
BINARY_TYPES = ("parquet", "arrow")
SAMPLED_LINES = 20
JSON_STARTS = (b"{", b"[")
Problem = tuple[str, str, str]
"""Code, message and remedy."""


def find_foreign_content(start: bytes, file_type: str, file: str) -> Problem | None:
    """Return what the first bytes of a file show it to be; None if it may be what its name says.

    `file` is its name in messages.
    """
    if start.startswith(LFS_POINTER):
        size = _SIZE.search(start[:300])
        where = f", which has {int(size[1])} bytes" if size else ""
        return "GitLfsPointer", f"a pointer of Git LFS, not the file itself{where}", "git lfs pull"
    if file_type in BINARY_TYPES:
        return None
    for magic, (name, program) in ARCHIVE_MAGIC.items():
        if start.startswith(magic):
            return _compressed(start, name, program, file)
    if detect_utf16(start):
        fix = f"{FIX_COMMAND} writes a copy in UTF-8"
        return "NotUtf8", "the file is UTF-16", fix
    if start.startswith(b"PAR1"):
        return _misnamed("Parquet", file, ".parquet")
    if start.startswith(b"%PDF-"):
        message, fix = "a PDF document", "write its text into a .txt file"
        return "WrongFileType", message, fix
    if file_type != "text" and _PAGE.match(start):
        message = "a web page or XML, not data; was a download page saved instead of the file?"
        fix = "download the file itself (on Hugging Face and GitHub by its download button)"
        return "WrongFileType", message, fix
    return None


def _compressed(start: bytes, name: str, program: str, file: str) -> Problem:
    if name == "zip" and (b"xl/" in start or b"[Content_Types].xml" in start):
        fix = "save the sheet as CSV (UTF-8) in the spreadsheet program"
        return "WrongFileType", "an Excel workbook", fix
    fix = f"{FIX_COMMAND} writes a copy that is unpacked"
    if program:
        fix = f"unpack it first: `{program} {shlex.quote(file)}`"
    return "Compressed", f"the file is compressed with {name}", fix


def _misnamed(what: str, file: str, suffix: str) -> Problem:
    return "WrongFileType", f"the file holds {what}", rename_command(file, suffix)


def find_misnamed_text(start: bytes, file: str) -> Problem | None:
    """Return what a file is that should hold JSON and of which no line begins as JSON does."""
    lines = [line.strip() for line in start.splitlines()[:SAMPLED_LINES] if line.strip()]
    if not lines or any(line[:1] in JSON_STARTS for line in lines):
        return None
    message = "not JSON: no line begins with a bracket"
    if all(b"," in line for line in lines) and len(lines) > 1:
        return "BadJson", f"{message}; is it CSV?", rename_command(file, ".csv")
    return "BadJson", message, 'write one record a line: {"prompt": ..., "completion": ...}'


def rename_command(file: str, suffix: str) -> str:
    """Return the command that gives a file, or an object of S3, another ending."""
    program = "aws s3 mv" if file.startswith("s3://") else "mv"
    stem = file.removesuffix(PurePath(file).suffix)
    command = f"{program} {shlex.quote(file)} {shlex.quote(stem + suffix)}"
    return f"rename it, and name it so in the job file: `{command}`"
