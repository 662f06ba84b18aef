"""A stand-in of an OpenAI-compatible server, whose models answer by a function, or fail as it says.

It is for what a real server does rarely: refusals, busy answers, other models under an old name.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stand_in_server import StandInHandler, StandInServer

Reply = tuple[int, Mapping[str, Any] | bytes, Mapping[str, str]]
"""Status, body and headers."""


def completion(
    text: str | None, *, finish: str = "stop", calls: Sequence[Mapping[str, Any]] = ()
) -> Reply:
    """Return the reply of a chat completion."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = list(calls)
    choice = {"index": 0, "message": message, "finish_reason": finish}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    return 200, {"choices": [choice], "usage": usage}, {}


def error(status: int, message: str, headers: Mapping[str, str] = {}) -> Reply:
    """Return an error as OpenAI writes it."""
    return status, {"error": {"message": message, "type": "error", "code": None}}, headers


class _Handler(StandInHandler):
    """Answers one request after the other."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            data = [{"id": name, "object": "model"} for name in self.stand_in.models]
            self._reply((200, {"object": "list", "data": data}, {}))
        else:
            self._reply(error(404, "not found"))

    def do_POST(self) -> None:
        stand_in = self.stand_in
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with stand_in.lock:
            stand_in.bodies.append({"path": self.path, **body})
            stand_in.running += 1
            stand_in.most_running = max(stand_in.most_running, stand_in.running)
        try:
            reply = stand_in.answer(body, self.headers.get("Authorization", ""))
        finally:
            with stand_in.lock:
                stand_in.running -= 1
        self._reply(reply)

    def _reply(self, reply: Reply) -> None:
        status, body, headers = reply
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send(status, dict(headers), content)


class OpenAIStandIn(StandInServer):
    """`answer` gets the body of a request and its Authorization header."""

    handler = _Handler

    def __init__(
        self, answer: Callable[[dict[str, Any], str], Reply], models: Sequence[str] = ("tuned",)
    ) -> None:
        super().__init__()
        self.answer = answer
        self.models = list(models)
        self.bodies: list[dict[str, Any]] = []
        self.running = self.most_running = 0
        self.lock = threading.Lock()
