"""Secrets and personal data in texts: found, named, and taken out.

Keys and tokens go by the patterns of detect-secrets; card numbers and IBANs by their checksums
(python-stdnum). What is found is never shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from cloudft.data.record import pointer
from cloudft.errors import UsageError

PLUGINS = (
    "aws",
    "azure_storage_key",
    "basic_auth",
    "discord",
    "github_token",
    "gitlab_token",
    "jwt",
    "mailchimp",
    "npm",
    "openai",
    "pypi_token",
    "sendgrid",
    "slack",
    "square_oauth",
    "stripe",
    "telegram_token",
    "twilio",
)
"""Of detect-secrets: what has a form of its own. Its guesses by entropy are left out."""


@dataclass(frozen=True)
class Hit:
    """Something private: its kind, and where it stands in the text."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Pattern:
    """What a kind looks like; `holds` tells a true one from a chance likeness."""

    kind: str
    form: re.Pattern[str]
    holds: Callable[[str], bool] | None = None


PEM = "[A-Z ]*PRIVATE KEY-----"
OWN = (
    ("PRIVATE_KEY", rf"-----BEGIN {PEM}(?:[\s\S]*?-----END {PEM})?"),
    ("API_KEY", r"\b(?:hf_[A-Za-z0-9]{30,}|sk-ant-[\w-]{20,}|github_pat_\w{22,})"),
    ("EMAIL", r"(?<![\w.+-])[\w.+-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}(?![\w-])"),
    ("PHONE", r"(?<![\w+])\+\d{1,3}(?:[ .-]?\(\d{1,4}\))?(?:[ .-]?\d{1,4}){2,5}(?!\w)"),
)
CARD = r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])"
IBAN = r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"


@lru_cache(maxsize=1)
def patterns() -> tuple[Pattern, ...]:
    """All of them. Raises UsageError when the libraries are not installed."""
    missing = [name for name in ("detect_secrets", "stdnum") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the scan needs {' and '.join(missing)}, not installed here",
            fix="pip install 'cloudft[data]'",
        )
    from stdnum import iban, luhn

    own = [Pattern(kind, re.compile(form)) for kind, form in OWN]
    own.append(Pattern("CARD", re.compile(CARD), lambda text: luhn.is_valid(_digits(text))))
    own.append(Pattern("IBAN", re.compile(IBAN), iban.is_valid))
    return (*own, *_from_detect_secrets())


def _digits(text: str) -> str:
    return "".join(filter(str.isdecimal, text))


def _from_detect_secrets() -> Iterator[Pattern]:
    base = import_module("detect_secrets.plugins.base").RegexBasedDetector
    for name in PLUGINS:
        module = import_module(f"detect_secrets.plugins.{name}")
        for plugin in vars(module).values():
            if isinstance(plugin, type) and issubclass(plugin, base) and plugin is not base:
                kind = re.sub(r"\W+", "_", str(plugin.secret_type)).upper()  # type: ignore[attr-defined]
                for form in plugin.denylist:  # type: ignore[attr-defined]
                    yield Pattern(kind, form)


def scan(text: str) -> list[Hit]:
    """Everything private in a text, in order; of two that overlap, the longer one."""
    found = [
        Hit(pattern.kind, match.start(), match.end())
        for pattern in patterns()
        for match in pattern.form.finditer(text)
        if match.end() > match.start() and (not pattern.holds or pattern.holds(match[0]))
    ]
    kept: list[Hit] = []
    for hit in sorted(found, key=lambda hit: hit.start - hit.end):
        if all(hit.end <= other.start or hit.start >= other.end for other in kept):
            kept.append(hit)
    return sorted(kept, key=lambda hit: hit.start)


def redact(text: str) -> str:
    """The text with <KIND> in the place of each; another scan of it finds nothing."""
    while hits := scan(text):
        for hit in reversed(hits):
            text = f"{text[: hit.start]}<{hit.kind}>{text[hit.end :]}"
    return text


def strings(value: Any, *keys: str | int) -> Iterator[tuple[str, str]]:
    """Every text within a JSON value, with its JSON pointer."""
    if isinstance(value, str):
        yield pointer(*keys), value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(inner, *keys, key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from strings(inner, *keys, index)


def redacted(value: Any) -> Any:
    """A JSON value with each of its texts redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redacted(inner) for key, inner in value.items()}
    return [redacted(inner) for inner in value] if isinstance(value, list) else value
