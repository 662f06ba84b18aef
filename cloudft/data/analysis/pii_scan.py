"""Secrets and personal data in texts: found, named, and taken out.

Keys and tokens go by the patterns of detect-secrets and by our own for those that it lacks or sees
in part; card numbers, IBANs, phone numbers and IP addresses by what makes them true
(private_numbers.py). What is found is never shown.
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
from typing import Any

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
"""Of detect-secrets: what has a form of its own. Left out are its guesses by entropy, and the forms
that see a secret in part (jwt, basic_auth) or take time by the square of a text (openai, npm)."""
REQUIRED_LIBRARIES = ("detect_secrets", "phonenumbers", "stdnum")


@dataclass(frozen=True)
class PiiMatch:
    """Something private: its kind, and where it stands in the text."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class PiiPattern:
    """What a kind looks like. The group `secret`, where there is one, is what is private.

    `end` tells how much of a likeness is a true one, from its beginning: 0 when nothing is.
    """

    kind: str
    regex: re.Pattern[str]
    match_length: Callable[[str], int] = len


PEM = (
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]*(?:-(?!----)[^-]*)*-----END [A-Z0-9 ]{0,50}-----"  # else cut off: what looks like it
    r"|(?:(?:\s|\\[nr])+[A-Za-z0-9+/=]{16,})*(?:(?:\s|\\[nr])+[A-Za-z0-9+/]{1,64}={1,2})?)"
)
API_KEYS = (
    r"hf_[A-Za-z0-9]{30,}",  # Hugging Face
    r"sk-ant-[\w-]{20,}",  # Anthropic
    r"sk-(?=[\w-]*\d)[\w-]{32,}",  # OpenAI and those who took over its form
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
"""With a country's code, or as North America writes them: other national forms look like any
number."""
CARD = tuple(
    rf"(?<![A-Za-z0-9.])(?<![A-Za-z0-9]-)(?=(?P<secret>{form})(?![A-Za-z0-9])(?!-[A-Za-z0-9]))"
    for form in (
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
"""Not what is called a version or goes on like one."""


@lru_cache(maxsize=1)
def load_patterns() -> tuple[PiiPattern, ...]:
    """All of them, the ones that name a find first. Raises UsageError without the libraries."""
    missing = [name for name in REQUIRED_LIBRARIES if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the scan needs {' and '.join(missing)}, not installed here",
            fix="pip install 'cloudft[data]'",
        )
    return (
        *(PiiPattern(kind, re.compile(form)) for kind, form in OWN_PATTERNS),
        *_from_detect_secrets(),
        PiiPattern("JSON_WEB_TOKEN", re.compile(JWT), _jwt_end),
        *(PiiPattern("CARD", re.compile(form), match_card) for form in CARD),
        PiiPattern("IBAN", re.compile(IBAN), match_iban),
        *(PiiPattern("PHONE", re.compile(form), match_phone) for form in PHONE),
        *(PiiPattern("IP", re.compile(form), match_ip) for form in IP),
    )


def _from_detect_secrets() -> Iterator[PiiPattern]:
    """Its forms, each to the end of the word: some know keys that have grown longer since."""
    base = import_module("detect_secrets.plugins.base").RegexBasedDetector
    for name in DETECT_SECRETS_PLUGINS:
        module = import_module(f"detect_secrets.plugins.{name}")
        for plugin in vars(module).values():
            if isinstance(plugin, type) and issubclass(plugin, base) and plugin is not base:
                kind = re.sub(r"\W+", "_", str(plugin.secret_type)).upper()  # type: ignore[attr-defined]
                for form in plugin.denylist:  # type: ignore[attr-defined]
                    to_the_end = rf"(?:{form.pattern})[A-Za-z0-9_]*"
                    yield PiiPattern(kind, re.compile(to_the_end, form.flags))


def _jwt_end(text: str) -> int:
    """All of it, when the header is a JSON object."""
    header = text.partition(".")[0].rstrip("=")
    try:
        decoded = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
    except (binascii.Error, ValueError):
        return 0
    return len(text) if decoded.startswith(b"{") and decoded.rstrip().endswith(b"}") else 0


def find_pii(text: str) -> list[PiiMatch]:
    """Everything private in a text, in order. Finds that overlap are one, of the surest kind."""
    found: list[tuple[int, int, int, str]] = []
    for rank, pattern in enumerate(load_patterns()):
        group = "secret" if "secret" in pattern.regex.groupindex else 0
        for match in pattern.regex.finditer(text):
            start = match.start(group)
            size = pattern.match_length(match[group])
            if size:
                found.append((start, start + size, rank, pattern.kind))
    found.sort()
    hits: list[PiiMatch] = []
    surest = 0
    for start, end, rank, kind in found:
        if hits and start < hits[-1].end:
            last = hits.pop()
            start, end, before = last.start, max(end, last.end), (surest, last.kind)
            rank, kind = min(before, (rank, kind))
        hits.append(PiiMatch(kind, start, end))
        surest = rank
    return hits


def redact_text(text: str) -> str:
    """The text with <KIND> in the place of each; another scan of it finds nothing."""
    while hits := find_pii(text):
        parts, at = [], 0
        for hit in hits:
            parts += [text[at : hit.start], f"<{hit.kind}>"]
            at = hit.end
        text = "".join([*parts, text[at:]])
    return text


def iter_strings(value: Any, *keys: str | int) -> Iterator[tuple[str, str]]:
    """Every text within a JSON value, and every long number, with its JSON pointer."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from iter_strings(inner, *keys, key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from iter_strings(inner, *keys, index)
    elif (text := _text(value)) is not None:
        yield json_pointer(*keys), text


def _text(value: Any) -> str | None:
    """What is to be looked at: a text, and a whole number long enough for a card's."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and abs(value) >= 10**12 else None


def redact_json(value: Any) -> Any:
    """A JSON value with each of its texts redacted; all else is as it was."""
    if isinstance(value, dict):
        return {key: redact_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [redact_json(inner) for inner in value]
    text = _text(value)
    if text is None:
        return value
    clean = redact_text(text)
    return value if clean == text else clean
