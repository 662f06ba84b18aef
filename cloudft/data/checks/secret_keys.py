"""Warn of keys and tokens in texts: a model may write what it was trained on.

Only secrets with a format of their own are looked for; `data scan` finds more. Nothing that is
found leaves this module but its kind and the record's line.

Each of them has a word of MIN_WORD characters at least, and such words are rare: blocks without
one are passed over, and in others the patterns are tried around these words alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from cloudft.data.findings import Findings
from cloudft.data.formats.fast_path import RecordBatch
from cloudft.data.formats.record import Document, Record
from cloudft.data.sources.line_blocks import is_numpy_worthwhile

MAX_SCANNED = 16_000_000
"""Bytes of a file that are searched, from its beginning."""
KINDS = {
    "private key": r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
    "AWS access key": r"A(?:KIA|SIA)(?![A-Z0-9]*EXAMPLE)[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"|[\w-]{0,30}(?:access_key|ACCESS_KEY|[Aa]ccessKey)[\\\"']{0,4}\s{0,8}[:=]\s{0,8}[\\\"']{0,4}"
    r"[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",
    "GitHub token": r"gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{22}",
    "GitLab token": r"glpat-[\w-]{20}",
    "Slack token": r"xox[abpors]-\d+-[\w-]{10}",
    "package registry token": r"npm_[A-Za-z0-9]{36}|pypi-AgE[\w-]{50}",
    "API key": r"sk-(?=[\w-]{0,200}\d)[\w-]{32}|[rs]k_(?:live|test)_[A-Za-z0-9]{24}"
    r"|hf_[A-Za-z0-9]{30}|AIza[\w-]{35}|SG\.[\w-]{22}\.[\w-]{43}",
}
"""What a secret is called, and what it looks like. AWS's own example key ends with EXAMPLE."""
HINTS = tuple(
    hint.encode()
    for hint in (
        *("PRIVATE KEY", "AKIA", "ASIA", "ccess_key", "CCESS_KEY", "ccessKey"),
        *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "npm_", "pypi-"),
        *("sk-", "_live_", "_test_", "hf_", "AIza", "SG."),
    )
)
"""What every secret has one of: they are found many times as fast as the patterns."""
MIN_WORD, LETTERS = 16, 26
_LONG_WORD = re.compile(rb"[\x2d-\x5b\x5d-\xff]{%d}" % MIN_WORD)
MAX_LISTED_LINES = 3
MAX_SPACE, BACKSLASH = ord(","), ord("\\")
"""Characters up to the comma, quotes and backslashes end a word."""
BEFORE, AFTER, LONGEST = 48, 24, 256
"""Bytes around the beginning of a part of a long word in which a hint is, and a pattern matches."""


@dataclass
class SecretDetector:
    """Takes the records of one file, singly or in blocks; `left` counts what may be searched."""

    left: int = field(default_factory=lambda: MAX_SCANNED)
    _kinds: dict[str, None] = field(default_factory=dict)
    _lines: list[int] = field(default_factory=list)

    def add_record(self, record: Record, line: int) -> None:
        """Search one record."""
        if self.left <= 0:
            return
        if isinstance(record, Document):
            texts = [record.text]
        else:
            texts = [
                *record.system,
                *(text for turn in record.all_turns for text in turn.all_texts),
            ]
        raw = "\0".join(texts).encode("utf-8", "surrogatepass")
        self.left -= len(raw)
        if _may_hold_secrets(raw):
            self._search(texts, line)

    def add_batch(self, batch: RecordBatch, raw: bytes, lines: Sequence[int]) -> None:
        """Search a block of plain records, which were decoded from `raw`."""
        if self.left <= 0:
            return
        self.left -= len(raw)
        if not _may_hold_secrets(raw):
            return
        columns = [column for column in (batch.prompts, batch.completions) if column]
        for line, texts in zip(lines, zip(*columns, strict=True), strict=True):
            self._search(texts, line)

    def _search(self, texts: Iterable[str], line: int) -> None:
        text = "\0".join(texts)
        kinds = [kind for kind, pattern in _patterns().items() if pattern.search(text)]
        if kinds:
            self._kinds.update(dict.fromkeys(kinds))
            self._lines.append(line)

    def warn(self, findings: Findings, file: str) -> None:
        """Add a warning if there are secrets."""
        if not self._lines:
            return
        count = len(self._lines)
        shown = ", ".join(map(str, self._lines[:MAX_LISTED_LINES]))
        more = ", ..." if count > MAX_LISTED_LINES else ""
        records = "1 record has" if count == 1 else f"{count} records have"
        message = (
            f"{records} what looks like a secret (lines {shown}{more}): {', '.join(self._kinds)};"
            " a model may write what it was trained on"
        )
        fix = "revoke them, and take them out: `data scan --redact` writes a copy without"
        findings.add(
            "SecretsInTexts", message, fix, file=file, line=self._lines[0], severity="warning"
        )


@lru_cache(maxsize=1)
def _patterns() -> Mapping[str, re.Pattern[str]]:
    """Return the pattern of each kind: it begins where a word does."""
    return {kind: re.compile(rf"(?<![\w-])(?:{core})") for kind, core in KINDS.items()}


@lru_cache(maxsize=1)
def _any_pattern() -> re.Pattern[bytes]:
    """Return one pattern of all kinds for JSON: in it a word may follow the n of a line end."""
    return re.compile("|".join(KINDS.values()).encode())


def _may_hold_secrets(raw: bytes) -> bool:
    """Return whether a text, or a block of JSON, has what looks like a secret somewhere."""
    places = _find_key_words(raw)
    near = b"\0".join([raw[max(0, at - BEFORE) : at + AFTER] for at in places])
    if not any(map(near.__contains__, HINTS)):
        return False
    pattern = _any_pattern()
    return any(pattern.search(raw, max(0, at - BEFORE), at + LONGEST) for at in places)


def _find_key_words(raw: bytes) -> Sequence[int]:
    """Return where MIN_WORD characters of a word are that may be a key's, in ascending order.

    No key is of letters alone, but one in capitals. With numpy a word has 19 characters at least:
    so many that four aligned groups of four are in it.
    """
    if not is_numpy_worthwhile(raw):
        found = (match.start() for match in _LONG_WORD.finditer(raw))
        parts = ((at, raw[at : at + MIN_WORD]) for at in found)
        return [at for at, part in parts if not part.isalpha() or part.isupper()]
    import numpy as np

    codes = np.frombuffer(raw, np.uint8)
    groups = codes[: len(raw) // 4 * 4]
    is_word = ((groups <= MAX_SPACE) | (groups == BACKSLASH)).view(np.uint32) == 0
    starts = 4 * np.flatnonzero(is_word[:-3] & is_word[1:-2] & is_word[2:-1] & is_word[3:])
    words = codes[starts[:, np.newaxis] + np.arange(MIN_WORD)]
    is_lower = words - ord("a") < LETTERS
    is_upper = words - ord("A") < LETTERS
    is_plain = (is_lower | is_upper).all(axis=1) & is_lower.any(axis=1)
    places: list[int] = starts[~is_plain].tolist()
    return places
