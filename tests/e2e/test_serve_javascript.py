"""`cloudft serve` by OpenAI's JavaScript client, on Node.js."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import npm_packages
import pytest
from served_jobs import CALLER, ROUTER, TOOL, question, running_server, train_jobs

pytest.importorskip("llguidance")

SCRIPT = Path(__file__).parent / "openai_client"


def test_the_javascript_client_chats_streams_and_calls_tools(tmp_path: Path) -> None:
    folder = npm_packages.install(SCRIPT, tmp_path / "script")
    home = train_jobs(tmp_path / "jobs")
    given = json.dumps({"question": question("Oslo"), "tool": TOOL})
    with running_server(home, CALLER, ROUTER) as server:
        done = subprocess.run(
            ["node", "client.mjs", server.url],
            cwd=folder,
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["models"] == [CALLER, ROUTER, "base"]
    assert got["whole"] == got["streamed"] != "" and got["usageIsTheSame"]
    assert got["call"] == got["streamedCall"] and got["call"]["name"] == "find"
    assert isinstance(got["afterTool"], str)
    if got["json"]["reason"] != "length":
        assert json.loads(got["json"]["content"]).keys() == {"city"}
    assert got["textReason"] in ("length", "stop")
    assert got["noModel"] == {
        "name": "NotFoundError",
        "status": 404,
        "code": "model_not_found",
        "param": "model",
        "hasId": True,
    }
    assert (got["unknown"]["status"], got["unknown"]["param"]) == (400, "best")
    assert got["tooLong"]["code"] == "context_length_exceeded"
