"""Call an OpenAI-compatible server: vLLM, llama.cpp's server, Ollama, `cloudft serve`.

The server is not trusted: it may be unreachable, busy, or answer with anything. The API key is
sent to it and to nobody else: redirects are not followed, and no message contains it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from cloudft.errors import CloudftError, CloudRefused, CloudUnreachable, UsageError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

KEY_VARIABLES = ("CLOUDFT_ENGINE_API_KEY", "OPENAI_API_KEY")
"""Environment variables of the API key, in order of preference."""
ATTEMPTS = 6
MAX_WAIT_S = 20.0
"""Longest time between two attempts, unless the server names another one (at most a minute)."""
MAX_RETRY_AFTER_S = 60.0
CONNECT_S, READ_S = 10.0, 900.0
SHOWN_CHARACTERS = 300
"""How much of a server's error message is shown."""


class _Busy(Exception):
    """A request that may succeed later."""

    def __init__(self, error: CloudftError, retry_after: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.retry_after = retry_after


class OpenAIClient:
    """A client of the server at `url`, with or without `/v1`. Its methods are thread-safe.

    Without an `api_key`, that of the environment is sent, where there is one.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        connections: int = 16,
        attempts: int = ATTEMPTS,
    ) -> None:
        import urllib3

        self.url = normalize_url(url)
        self._attempts = attempts
        timeout = urllib3.Timeout(connect=CONNECT_S, read=READ_S)
        self._pool = urllib3.PoolManager(maxsize=connections, timeout=timeout, retries=False)
        key = api_key or next(filter(None, map(os.environ.get, KEY_VARIABLES)), None)
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON reply to a request. `path` begins with `/v1/`.

        Raise CloudUnreachable where every attempt failed for a passing reason, CloudRefused where
        the server refused the request.
        """
        return self._retry("POST", path, orjson.dumps(body))

    def get(self, path: str) -> dict[str, Any]:
        """Return a JSON document of the server. Raise the errors of `post`."""
        return self._retry("GET", path, None)

    def find(self, path: str) -> dict[str, Any] | None:
        """Return a JSON document that only some servers have; None without it. One attempt."""
        import urllib3

        try:
            response = self._request("GET", path, None)
            found = orjson.loads(response.data) if response.status == 200 else None
        except (urllib3.exceptions.HTTPError, orjson.JSONDecodeError):
            return None
        return found if isinstance(found, dict) else None

    def is_healthy(self) -> bool:
        """Return whether `/health` answers with 200. One attempt."""
        import urllib3

        try:
            return self._request("GET", "/health", None).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def _retry(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

        attempts = Retrying(
            retry=retry_if_exception_type(_Busy),
            stop=stop_after_attempt(self._attempts),
            wait=_wait_seconds,
            reraise=True,
        )
        try:
            reply: dict[str, Any] = attempts(self._call, method, path, body)
        except _Busy as busy:
            raise busy.error from None
        return reply

    def _call(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        """Send one request. Raise _Busy where another attempt may succeed."""
        import urllib3

        try:
            response = self._request(method, path, body)
        except urllib3.exceptions.HTTPError as error:
            raise _Busy(self._unreachable(type(error).__name__)) from None
        if response.status == 429 or response.status >= 500:
            raise _Busy(self._busy(response), _retry_after(response))
        if response.status != 200:
            raise self._refused(response, path)
        try:
            reply = orjson.loads(response.data)
        except orjson.JSONDecodeError:
            reply = None
        if not isinstance(reply, dict):
            raise CloudRefused(
                f"{self.url} answered {path} with something that is no JSON object",
                fix="name the address of an OpenAI-compatible server: openai:http://HOST:PORT/v1",
            )
        return reply

    def _request(self, method: str, path: str, body: bytes | None) -> BaseHTTPResponse:
        return self._pool.request(
            method, self.url + path, body=body, headers=self._headers, redirect=False
        )

    def _unreachable(self, why: str) -> CloudUnreachable:
        return CloudUnreachable(
            f"{self.url} can't be reached ({why})",
            fix="start the server, or check its address and port.",
        )

    def _busy(self, response: BaseHTTPResponse) -> CloudUnreachable:
        return CloudUnreachable(
            f"{self.url} still answers {response.status} after {self._attempts} attempts:"
            f" {_message(response)}",
            fix="look into the server's log; run the command again: answers so far are cached.",
        )

    def _refused(self, response: BaseHTTPResponse, path: str) -> CloudRefused:
        if response.status in (401, 403):
            fix = f"put the server's API key into {KEY_VARIABLES[0]}."
            what = f"{self.url} refuses the API key" if self._has_key else "an API key is missing"
            return CloudRefused(f"{what} ({response.status}): {_message(response)}", fix=fix)
        if response.status == 404:
            fix = f"name a model that it has: --engine-model NAME; {self.url}/v1/models lists them."
        elif 300 <= response.status < 400:
            fix = "name the address that it redirects to; cloudft sends the API key nowhere else."
        else:
            fix = "see the server's log; leave out --engine to evaluate by the job's own backend."
        message = f"{self.url} refused {path} with {response.status}: {_message(response)}"
        return CloudRefused(message, fix=fix)

    @property
    def _has_key(self) -> bool:
        return "Authorization" in self._headers


def normalize_url(url: str) -> str:
    """Return a server's base URL without `/v1` and slashes at its end. Raise UsageError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"{url[:200]!r} is not the address of a server",
            fix="write openai:http://HOST:PORT/v1",
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            "a server's address has no password, query or fragment",
            fix=f"put an API key into {KEY_VARIABLES[0]}.",
        )
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _wait_seconds(state: Any) -> float:
    """Return the time before the next attempt: the server's own wish, or 0.5, 1, 2 ... seconds."""
    error = state.outcome.exception()
    named = error.retry_after if isinstance(error, _Busy) else None
    if named is not None:
        return min(float(named), MAX_RETRY_AFTER_S)
    return float(min(0.25 * 2**state.attempt_number, MAX_WAIT_S))


def _retry_after(response: BaseHTTPResponse) -> float | None:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _message(response: BaseHTTPResponse) -> str:
    """Return the message of an error, as OpenAI and most servers write it, else its beginning."""
    text = response.data.decode("utf-8", "replace")
    try:
        body = orjson.loads(response.data)
        error = body.get("error", body)
        text = str(error.get("message", text) if isinstance(error, dict) else error)
    except (orjson.JSONDecodeError, AttributeError):
        pass
    return " ".join(text.split())[:SHOWN_CHARACTERS] or "no message"
