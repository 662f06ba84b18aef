"""Decide which requests a local HTTP server answers: those of programs and of its own page.

Any web page in the user's browser can send requests to a server on loopback. A page can't choose
the headers `Host`, `Origin` and `Sec-Fetch-*`, and can't read a response without CORS headers.
`RequestGuard` checks those request headers. `harden_headers` removes CORS headers and makes content
that is stored in the server inert in a browser.

Sources: Fetch Standard (CORS, `Origin`, `Cross-Origin-Resource-Policy`), W3C Fetch Metadata Request
Headers, Content Security Policy Level 3 (`sandbox`), RFC 6761 section 6.3 (`localhost`).
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PAGE_HEADERS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""Headers of every page of cloudft. Each page adds its own Content-Security-Policy."""
INERT_CONTENT_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
"""The Content-Security-Policy of stored content: no scripts, no forms, an opaque origin."""
STORED_HEADERS = (
    ("Content-Security-Policy", INERT_CONTENT_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
FOREIGN_PAGE_MESSAGE = "a web page of another origin may not use this server"


@dataclass(frozen=True)
class RequestGuard:
    """Access rules of one server.

    `names` are further host names of the server, in addition to `localhost` and IP addresses;
    `name_fix` says how to add one. `token` is required for pages and administration.
    """

    names: frozenset[str] = frozenset()
    name_fix: str = ""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)

    def refusal_reason(
        self, method: str, headers: Mapping[str, str], *, allow_navigation: bool = False
    ) -> str | None:
        """Return why a request is refused, or None when it may pass.

        `headers` have lowercase names. With `allow_navigation`, another page may navigate the
        browser here with a GET; it can't read the response.
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        if host and not self._is_own_name(host):
            return f"this server does not have the host name {host[:100]!r}{self.name_fix}"
        if origin is not None and origin.lower() != f"http://{host}".lower():
            return FOREIGN_PAGE_MESSAGE
        linked = allow_navigation and method == "GET"
        site = headers.get("sec-fetch-site")
        if site is None:
            # No fetch metadata: a program, an old browser, or an address that is not loopback.
            unmarked = origin is None and _is_browser(headers) and "authorization" not in headers
            return FOREIGN_PAGE_MESSAGE if unmarked and not linked else None
        if site in ("same-origin", "none"):
            return None
        window = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
        return None if linked and window == ("navigate", "document") else FOREIGN_PAGE_MESSAGE

    def is_valid_token(self, token: str) -> bool:
        """Return whether `token` is the server's token, in constant time."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def _is_own_name(self, host: str) -> bool:
        """Return whether a Host header can't be a foreign domain that points here (DNS rebinding).

        The port is not compared: a forwarded port (SSH, a container) has another number.
        """
        name = re.sub(r":\d*$", "", host).lower().rstrip(".")
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            # Subdomains of `localhost` and of `names` are S3 buckets, as the SDKs address them.
            known = {"localhost", *self.names}
            return any(name == own or name.endswith(f".{own}") for own in known)
        return True


def _is_browser(headers: Mapping[str, str]) -> bool:
    return headers.get("user-agent", "").startswith("Mozilla/")


def harden_headers(
    headers: Iterable[tuple[str, str]], *, download: bool = False
) -> list[tuple[str, str]]:
    """Return response headers without CORS permissions, and with headers that make content inert.

    With `download`, a browser saves the content instead of showing it.
    """
    original = list(headers)
    added = dict(STORED_HEADERS)
    if download:
        dispositions = [value for name, value in original if name.lower() == "content-disposition"]
        added["Content-Disposition"] = _as_attachment("".join(dispositions[-1:]))
    replaced = {name.lower() for name in added}
    kept = [
        (name, value)
        for name, value in original
        if name.lower() not in replaced and not name.lower().startswith("access-control-")
    ]
    return [*kept, *added.items()]


def _as_attachment(disposition: str) -> str:
    """Return a Content-Disposition as an attachment with the same file name."""
    _, semicolon, parameters = disposition.partition(";")
    return f"attachment{semicolon}{parameters}"
