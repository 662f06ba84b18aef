r"""Define what secrets and personal data look like, and hints by which most texts are passed over.

A hint is a regex that a text's outline matches wherever the pattern matches the text. An outline is
the text in ASCII: each digit as 0, each other character outside ASCII as ?, a no-break space as a
space, and a letter that a regex without case takes for an ASCII letter as that letter. It has one
byte for each character of the text, so positions are the same in both. Outlines of many texts are
searched at once, by regexes that begin with literals: at the speed of memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from cloudft.data.analysis.pii_validators import (
    match_card,
    match_iban,
    match_ip,
    match_jwt,
    match_phone,
)
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

Starts = Callable[[str, int, int], Iterable[int]]
"""Takes a text, the end of the last match, and where the hint matches; returns in ascending order
the positions where a match of the pattern may start."""


class Hint(NamedTuple):
    """What an outline has wherever a pattern matches; in lower case if it is `folded`."""

    regex: re.Pattern[bytes]
    folded: bool = False


@dataclass(frozen=True)
class PiiPattern:
    """The regex of a kind. Its group `secret`, if it has one, is what is private.

    `match_length` returns how much of a match is valid, from its beginning: 0 if nothing is. A
    pattern without `hint` is searched in every text; with `starts` it is tried there alone.
    """

    kind: str
    regex: re.Pattern[str]
    match_length: Callable[[str], int] = len
    hint: Hint | None = None
    starts: Starts | None = None


def _hint(pattern: bytes, *, folded: bool = False) -> Hint:
    return Hint(re.compile(pattern), folded)


def _start_within(longest: int, shortest: int = 0) -> Starts:
    """Return the positions so many characters before a hint."""

    def starts(text: str, at: int, hint_at: int) -> Iterable[int]:
        return range(max(at, hint_at - longest), hint_at - shortest + 1)

    return starts


LOCAL_PART = re.compile(r"[\w.%+-]+")


def _start_of_local_part(text: str, at: int, hint_at: int) -> Iterable[int]:
    """Return where the e-mail address with this @ starts."""
    at = max(at, text.rfind("@", at, hint_at) + 1)
    local = LOCAL_PART.match(text[at:hint_at][::-1])
    return (hint_at - local.end(),) if local else ()


UNDERSCORE_KEY = _hint(
    rb"_(?=[A-Za-z0_?]{22})"
    rb"(?:(?<=hf_)|(?<=npm_)|(?<=gh[pousr]_)|(?<=github_pat_)|(?<=[rs]k_test_)|(?<=[rs]k_live_))"
)
HYPHEN_KEY = _hint(
    rb"-(?=[A-Za-z0_?\\-]{12})(?:(?<=[^A-Za-z0_-]sk-)|(?<=xapp-)|(?<=pypi-)|(?<=sq0csp-)"
    rb"|(?<=glpat-)|(?<=gldt-)|(?<=glft-)|(?<=glsoat-)|(?<=glrt-)|(?<=glcbt-)|(?<=glimt-)"
    rb"|(?<=glptt-)|(?<=glagent-)|(?<=gloas-))"
)
"""The characters before and after an underscore or hyphen: rarer than any letter of a key."""
PEM = (
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]*(?:-(?!----)[^-]*)*-----END [A-Z0-9 ]{0,50}-----"  # else truncated: base64
    r"|(?:(?:\s|\\[nr])+[A-Za-z0-9+/=]{16,})*(?:(?:\s|\\[nr])+[A-Za-z0-9+/]{1,64}={1,2})?)"
)
API_KEYS = (
    (r"hf_", r"[A-Za-z0-9]{30,}", UNDERSCORE_KEY),  # Hugging Face
    (r"sk-ant-", r"[\w-]{20,}", HYPHEN_KEY),  # Anthropic
    (r"sk-", r"(?=[\w-]*\d)[\w-]{32,}", HYPHEN_KEY),  # OpenAI and those who use its format
    (r"github_pat_", r"\w{22,}", UNDERSCORE_KEY),
    (r"AIza", r"[\w-]{35}", _hint(rb"AIza[A-Za-z0_?-]{35}")),  # Google
    (r"npm_", r"[A-Za-z0-9]{36}", UNDERSCORE_KEY),
    (r"rk_test_", r"[A-Za-z0-9]{24,}", UNDERSCORE_KEY),  # Stripe
    (r"sk_test_", r"[A-Za-z0-9]{24,}", UNDERSCORE_KEY),
    (r"xapp-", r"\d-[\w-]{10,}", HYPHEN_KEY),  # Slack
)
"""Prefix, what follows it, and the hint."""
BASIC_AUTH = r"""://(?P<secret>[^\s/:@"'<>]{0,256}:[^\s/"'<>]{1,256})@"""
SECRET_ACCESS_KEY = (
    r"(?i:secret_?access_?key)[\"']?\s{0,8}[:=]\s{0,8}[\"']?"
    r"(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])"
)
NPM_AUTH = r""":_authToken=\s{0,8}(?P<secret>[^\s"'<>]{8,})"""
EMAIL = r"(?<![\w.%+-])[\w.%+-]+@(?:[\w-]+\.)+[^\W\d_]{2,}(?![A-Za-z0-9])"
JWT = r"eyJ(?<![\w-]eyJ)[\w-]+={0,2}\.[\w-]+={0,2}(?:\.[\w-]*={0,2}){0,3}"
"""Header, payload, signature (RFC 7519); five parts when it is encrypted (RFC 7516)."""
PHONE = r"(?<![\w+])\+\d{1,3}(?:[ ./-]?\(\d{1,4}\))?(?:[ ./-]{0,2}\d{1,5}){2,6}(?!\w)"
"""With a country's code: other national formats than North America's look like any number."""
NORTH_AMERICAN_PHONE = (
    r"(?<![\w+.-])(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}(?![\w-])"
)
CARD = tuple(
    (
        rf"(?<![A-Za-z0-9.])(?<![A-Za-z0-9]-)"
        rf"(?=(?P<secret>{pattern})(?![A-Za-z0-9])(?!-[A-Za-z0-9]))",
        _hint(hint),
    )
    for pattern, hint in (
        (r"\d{13,19}", rb"0000000000000"),
        (r"\d{4}([ \u00a0.-])\d{4}\2\d{4}\2\d{4}", rb"0000[-. ]0000[-. ]0000[-. ]0000"),
        (r"\d{4}([ \u00a0.-])\d{4}\2\d{4}\2\d{4}\2\d{3}", rb"0000[-. ]0000[-. ]0000[-. ]0000"),
        (r"\d{4}([ \u00a0.-])\d{6}\2\d{4,5}", rb"0000[-. ]000000[-. ]0000"),
    )
)
IBAN = r"(?i)\b(?=(?P<secret>[a-z]{2}\d{2}(?:[ \u00a0]?[a-z0-9]){11,30})(?![a-z0-9]))"
IP = r"(?<![\w.:-])(?<![Vv]ersion )(?:\d{1,3}\.){3}\d{1,3}(?![\w-])(?!\.\w)"
"""Not what is called a version, or continues like one."""
IPV6 = r"(?<![\w.:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"

DETECT_SECRETS_HINTS: dict[Hint, tuple[str, ...]] = {
    _hint(rb"A(?:0T[A-Z0]|BIA|CCA|KIA|SIA)[0A-Z]{16}"): (
        r"(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[0-9A-Z]{16}",
    ),
    _hint(rb"""aws(?=.{0,48}["'][0a-z/+]{40}["'])""", folded=True): (
        r"aws.{0,20}?(?:key|pwd|pw|password|pass|token).{0,20}?[\'\"]([0-9a-zA-Z/+]{40})[\'\"]",
    ),
    _hint(rb"AccountKey="): (r"AccountKey=[a-zA-Z0-9+\/=]{88}",),
    _hint(rb"\.[A-Za-z0_-]{6}\.[A-Za-z0_-]{27}"): (
        r"[MNO][a-zA-Z\d_-]{23,25}\.[a-zA-Z\d_-]{6}\.[a-zA-Z\d_-]{27}",
    ),
    UNDERSCORE_KEY: (
        r"(ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9_]{36}",
        r"(?:r|s)k_live_[0-9a-zA-Z]{24}",
    ),
    HYPHEN_KEY: (
        r"(glpat|gldt|glft|glsoat|glrt)-[A-Za-z0-9_\-]{20,50}(?!\w)",
        r"glcbt-([0-9a-fA-F]{2}_)?[A-Za-z0-9_\-]{20,50}(?!\w)",
        r"glimt-[A-Za-z0-9_\-]{25}(?!\w)",
        r"glptt-[A-Za-z0-9_\-]{40}(?!\w)",
        r"glagent-[A-Za-z0-9_\-]{50,1024}(?!\w)",
        r"gloas-[A-Za-z0-9_\-]{64}(?!\w)",
        r"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9-_]{70,}",
        r"pypi-AgENdGVzdC5weXBpLm9yZw[A-Za-z0-9-_]{70,}",
        r"sq0csp-[0-9A-Za-z\\\-_]{43}",
    ),
    _hint(rb"GR0000000"): (r"GR1348941[A-Za-z0-9_\-]{20,50}(?!\w)",),
    _hint(rb"-us0"): (r"[0-9a-z]{32}-us[0-9]{1,2}",),
    _hint(rb"SG\."): (r"SG\.[a-zA-Z0-9_-]{22}\.[a-zA-Z0-9_-]{43}",),
    _hint(rb"-(?<=xox[abpors]-)0", folded=True): (r"xox(?:a|b|p|o|s|r)-(?:\d+-)+[a-z0-9]+",),
    _hint(rb"://hooks\.slack", folded=True): (
        r"https://hooks\.slack\.com/services/T[a-zA-Z0-9_]+/B[a-zA-Z0-9_]+/[a-zA-Z0-9_]+",
    ),
    _hint(rb"0:[A-Za-z0_-]{35}"): (r"\d{8,10}:[0-9A-Za-z_-]{35}",),
    _hint(rb"AC[a-z0]{32}"): (r"AC[a-z0-9]{32}",),
    _hint(rb"SK[a-z0]{32}"): (r"SK[a-z0-9]{32}",),
}
"""The patterns of detect-secrets that have a hint. A later version's others are searched in every
text: slower, and nothing is missed."""


@lru_cache(maxsize=1)
def load_patterns() -> tuple[PiiPattern, ...]:
    """Return all patterns, the most specific first. Raises UsageError without the libraries."""
    missing = [name for name in REQUIRED_LIBRARIES if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"finding personal data needs {' and '.join(missing)}: not installed",
            fix="pip install 'cloudft[data]'",
        )
    return (*_own_secrets(), *_from_detect_secrets(), *_personal_data())


def _own_secrets() -> Iterator[PiiPattern]:
    key, at_hint = re.compile, _start_within(0)
    yield PiiPattern("PRIVATE_KEY", key(PEM), hint=_hint(rb"-----BEGIN "))
    address = _hint(rb"""://[^\s/:@"'<>]{0,256}:[^\s/"'<>]{1,256}@""")
    yield PiiPattern("BASIC_AUTH_CREDENTIALS", key(BASIC_AUTH), hint=address, starts=at_hint)
    secret = _hint(rb"secret_?access_?key", folded=True)
    yield PiiPattern("AWS_ACCESS_KEY", key(SECRET_ACCESS_KEY), hint=secret, starts=at_hint)
    yield PiiPattern("NPM_TOKEN", key(NPM_AUTH), hint=_hint(rb":_authToken="))
    for prefix, rest, hint in API_KEYS:
        yield PiiPattern("API_KEY", key(rf"{prefix}(?<![\w-]{prefix}){rest}"), hint=hint)
    domain = _hint(rb"@(?<=[A-Za-z0_.%+?-]@)[A-Za-z0_?-]")
    yield PiiPattern("EMAIL", key(EMAIL), hint=domain, starts=_start_of_local_part)


def _from_detect_secrets() -> Iterator[PiiPattern]:
    """Yield its patterns, each to the end of the word: some keys have grown longer since."""
    base = import_module("detect_secrets.plugins.base").RegexBasedDetector
    hints = {
        pattern: hint for hint, patterns in DETECT_SECRETS_HINTS.items() for pattern in patterns
    }
    for name in DETECT_SECRETS_PLUGINS:
        module = import_module(f"detect_secrets.plugins.{name}")
        for plugin in vars(module).values():
            if isinstance(plugin, type) and issubclass(plugin, base) and plugin is not base:
                kind = re.sub(r"\W+", "_", str(plugin.secret_type)).upper()  # type: ignore[attr-defined]
                for pattern in plugin.denylist:  # type: ignore[attr-defined]
                    to_the_end = re.compile(rf"(?:{pattern.pattern})[A-Za-z0-9_]*", pattern.flags)
                    yield PiiPattern(kind, to_the_end, hint=hints.get(pattern.pattern))


def _personal_data() -> Iterator[PiiPattern]:
    yield PiiPattern(
        "JSON_WEB_TOKEN", re.compile(JWT), match_jwt, _hint(rb"eyJ(?<=[^A-Za-z0_-]eyJ)")
    )
    at_hint = _start_within(0)
    for pattern, hint in CARD:
        yield PiiPattern("CARD", re.compile(pattern), match_card, hint, at_hint)
    letters = _hint(rb"00(?<=[^A-Za-z0_][A-Za-z][A-Za-z]00)")
    yield PiiPattern("IBAN", re.compile(IBAN), match_iban, letters, _start_within(2, 2))
    yield PiiPattern("PHONE", re.compile(PHONE), match_phone, _hint(rb"\+0"), at_hint)
    # Before it are the area code and perhaps a 1: "1-(212) " at most, "212-" at least.
    exchange = _hint(rb"000[-. ]0000(?![A-Za-z0_-])"), _start_within(8, 4)
    yield PiiPattern("PHONE", re.compile(NORTH_AMERICAN_PHONE), match_phone, *exchange)
    octets = _hint(rb"0(?<![A-Za-z0_.:-]0)(?:00?)?\.0{1,3}\.0{1,3}\.0")
    yield PiiPattern("IP", re.compile(IP), match_ip, octets, at_hint)
    # An address has two colons in a row somewhere, or seven.
    colons = _hint(rb":(?::|(?:[0A-Fa-f]{1,4}:){6})")
    yield PiiPattern("IP", re.compile(IPV6), match_ip, colons)


NON_ASCII_DIGIT = re.compile(r"[^\x00-\x7f\D]")
ASCII_LIKE = {"\u00a0": " ", "\u0130": "i", "\u0131": "i", "\u017f": "s", "\u212a": "k"}
"""Characters outside ASCII that a pattern may match, digits apart, with the ASCII one like them."""
DIGITS_AS_0 = bytes(48 if chr(byte).isdecimal() and byte < 128 else byte for byte in range(256))


class Outline(NamedTuple):
    """The outline of a text, and the same in lower case."""

    plain: bytes
    folded: bytes

    @classmethod
    def of(cls, text: str) -> Outline:
        """Return the outline of a text."""
        if not text.isascii():
            text = NON_ASCII_DIGIT.sub("0", text)
            for character, like in ASCII_LIKE.items():
                text = text.replace(character, like)
        plain = text.encode("ascii", "replace").translate(DIGITS_AS_0)
        return cls(plain, plain.lower())

    def view(self, hint: Hint) -> bytes:
        """Return what a hint is searched in."""
        return self.folded if hint.folded else self.plain
