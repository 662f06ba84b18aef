"""Find secrets and personal data in texts, name them, and redact them.

Keys and tokens are found by the patterns of detect-secrets, and by our own for those that it lacks
or matches in part; card numbers, IBANs, phone numbers and IP addresses by what makes them valid
(private_numbers.py). What is found is never printed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec

from cloudft.data.analysis.pii_validators import match_card, match_iban, match_ip, match_phone
from cloudft.data.formats.record import json_pointer
from cloudft.errors import UsageError

DETECT_SECRETS_PLUGINS = (
    "aws",
    "azure_storage_key",
    "discord",
    "github_token",
    "gitlab_token",
    "mailchimp",
    "pypi_token",
    "sendgrid",
    "slack",
    "square_oauth",
    "stripe",
    "telegram_token",
    "twilio",
)
"""Plugins of detect-secrets for secrets with a format of their own. Left out are its guesses by
entropy, and patterns that match a secret in part (jwt, basic_auth) or take time by the square of a
text (openai, npm)."""
REQUIRED_LIBRARIES = ("detect_secrets", "phonenumbers", "stdnum")


@dataclass(frozen=True)
class PiiMatch:
    """A secret or personal datum: its kind, and its position in the text."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class PiiPattern:
    """The regex of a kind. Its group `secret`, if it has one, is what is private.

    `match_length` returns how much of a match is valid, from its beginning: 0 if nothing is.
    """

    kind: str
    regex: re.Pattern[str]
    match_length: Callable[[str], int] = len


PEM = (
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]*(?:-(?!----)[^-]*)*-----END [A-Z0-9 ]{0,50}-----"  # else truncated: base64
    r"|(?:(?:\s|\\[nr])+[A-Za-z0-9+/=]{16,})*(?:(?:\s|\\[nr])+[A-Za-z0-9+/]{1,64}={1,2})?)"
)
API_KEYS = (
    r"hf_[A-Za-z0-9]{30,}",  # Hugging Face
    r"sk-ant-[\w-]{20,}",  # Anthropic
    r"sk-(?=[\w-]*\d)[\w-]{32,}",  # OpenAI and those who use its format
    r"github_pat_\w{22,}",
    r"AIza[\w-]{35}",  # Google
    r"npm_[A-Za-z0-9]{36}",
    r"[rs]k_test_[A-Za-z0-9]{24,}",  # Stripe
    r"xapp-\d-[\w-]{10,}",  # Slack
)
OWN_PATTERNS = (
    ("PRIVATE_KEY", PEM),
    (
        "BASIC_AUTH_CREDENTIALS",
        r"""(?<=://)(?P<secret>[^\s/:@"'<>]{0,256}:[^\s/"'<>]{1,256})@""",
    ),
    (
        "AWS_ACCESS_KEY",
        r"(?i:secret_?access_?key)[\"']?\s{0,8}[:=]\s{0,8}[\"']?"
        r"(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])",
    ),
    ("NPM_TOKEN", r""":_authToken=\s{0,8}(?P<secret>[^\s"'<>]{8,})"""),
    ("API_KEY", rf"(?<![\w-])(?:{'|'.join(API_KEYS)})"),
    ("EMAIL", r"(?<![\w.%+-])[\w.%+-]+@(?:[\w-]+\.)+[^\W\d_]{2,}(?![A-Za-z0-9])"),
)
JWT = r"(?<![\w-])eyJ[\w-]+={0,2}\.[\w-]+={0,2}(?:\.[\w-]*={0,2}){0,3}"
"""Header, payload, signature (RFC 7519); five parts when it is encrypted (RFC 7516)."""
PHONE = (
    r"(?<![\w+])\+\d{1,3}(?:[ ./-]?\(\d{1,4}\))?(?:[ ./-]{0,2}\d{1,5}){2,6}(?!\w)",
    r"(?<![\w+.-])(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}(?![\w-])",
)
"""With a country's code, or as North America writes them: other national formats look like any
number."""
CARD = tuple(
    rf"(?<![A-Za-z0-9.])(?<![A-Za-z0-9]-)(?=(?P<secret>{pattern})(?![A-Za-z0-9])(?!-[A-Za-z0-9]))"
    for pattern in (
        r"\d{13,19}",
        r"\d{4}([ \u00a0.-])\d{4}\2\d{4}\2\d{4}",
        r"\d{4}([ \u00a0.-])\d{4}\2\d{4}\2\d{4}\2\d{3}",
        r"\d{4}([ \u00a0.-])\d{6}\2\d{4,5}",
    )
)
IBAN = r"(?i)\b(?=(?P<secret>[a-z]{2}\d{2}(?:[ \u00a0]?[a-z0-9]){11,30})(?![a-z0-9]))"
IP = (
    r"(?<![\w.:-])(?<![Vv]ersion )(?:\d{1,3}\.){3}\d{1,3}(?![\w-])(?!\.\w)",
    r"(?<![\w.:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])",
)
"""Not what is called a version, or continues like one."""


@lru_cache(maxsize=1)
def load_patterns() -> tuple[PiiPattern, ...]:
    """Return all patterns, the most specific first. Raises UsageError without the libraries."""
    missing = [name for name in REQUIRED_LIBRARIES if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"finding personal data needs {' and '.join(missing)}: not installed",
            fix="pip install 'cloudft[data]'",
        )
    return (
        *(PiiPattern(kind, re.compile(pattern)) for kind, pattern in OWN_PATTERNS),
        *_from_detect_secrets(),
        PiiPattern("JSON_WEB_TOKEN", re.compile(JWT), _match_jwt),
        *(PiiPattern("CARD", re.compile(pattern), match_card) for pattern in CARD),
        PiiPattern("IBAN", re.compile(IBAN), match_iban),
        *(PiiPattern("PHONE", re.compile(pattern), match_phone) for pattern in PHONE),
        *(PiiPattern("IP", re.compile(pattern), match_ip) for pattern in IP),
    )


def _from_detect_secrets() -> Iterator[PiiPattern]:
    """Yield its patterns, each to the end of the word: some keys have grown longer since."""
    base = import_module("detect_secrets.plugins.base").RegexBasedDetector
    for name in DETECT_SECRETS_PLUGINS:
        module = import_module(f"detect_secrets.plugins.{name}")
        for plugin in vars(module).values():
            if isinstance(plugin, type) and issubclass(plugin, base) and plugin is not base:
                kind = re.sub(r"\W+", "_", str(plugin.secret_type)).upper()  # type: ignore[attr-defined]
                for pattern in plugin.denylist:  # type: ignore[attr-defined]
                    to_the_end = rf"(?:{pattern.pattern})[A-Za-z0-9_]*"
                    yield PiiPattern(kind, re.compile(to_the_end, pattern.flags))


def _match_jwt(text: str) -> int:
    """Match all of it, if the header is a JSON object."""
    header = text.partition(".")[0].rstrip("=")
    try:
        decoded = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
    except (binascii.Error, ValueError):
        return 0
    return len(text) if decoded.startswith(b"{") and decoded.rstrip().endswith(b"}") else 0


def find_pii(text: str) -> list[PiiMatch]:
    """Return what is private in a text, in order.

    Overlapping matches are merged into one, of the most specific kind.
    """
    matches: list[tuple[int, int, int, str]] = []
    for rank, pattern in enumerate(load_patterns()):
        group = "secret" if "secret" in pattern.regex.groupindex else 0
        for match in pattern.regex.finditer(text):
            start = match.start(group)
            size = pattern.match_length(match[group])
            if size:
                matches.append((start, start + size, rank, pattern.kind))
    matches.sort()
    hits: list[PiiMatch] = []
    surest = 0
    for start, end, rank, kind in matches:
        if hits and start < hits[-1].end:
            last = hits.pop()
            start, end, before = last.start, max(end, last.end), (surest, last.kind)
            rank, kind = min(before, (rank, kind))
        hits.append(PiiMatch(kind, start, end))
        surest = rank
    return hits


def redact_text(text: str) -> str:
    """Return the text with <KIND> in place of each match; scanning it again finds nothing."""
    while hits := find_pii(text):
        parts, at = [], 0
        for hit in hits:
            parts += [text[at : hit.start], f"<{hit.kind}>"]
            at = hit.end
        text = "".join([*parts, text[at:]])
    return text


def iter_strings(value: object, *keys: str | int) -> Iterator[tuple[str, str]]:
    """Yield every text within a JSON value, and every long number, with its JSON pointer."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from iter_strings(inner, *keys, key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from iter_strings(inner, *keys, index)
    elif (text := _text(value)) is not None:
        yield json_pointer(*keys), text


def _text(value: object) -> str | None:
    """Return what is scanned: a text, or a whole number long enough for a card's. Else None."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and abs(value) >= 10**12 else None


def redact_json(value: object) -> object:
    """Return a JSON value with each of its texts redacted."""
    if isinstance(value, dict):
        return {key: redact_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [redact_json(inner) for inner in value]
    text = _text(value)
    if text is None:
        return value
    clean = redact_text(text)
    return value if clean == text else clean
