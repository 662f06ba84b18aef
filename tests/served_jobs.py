"""Jobs of one tiny base that can be served, and a running `cloudft serve` of them.

`python tests/served_jobs.py FOLDER` trains them, for tests in another environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CITIES = ("Lyon", "Oslo", "Quito", "Cairo", "Lima", "Bonn", "Rome", "Kyiv")
TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Find a parcel.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": list(CITIES)}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CALLER, ROUTER = "caller", "router"
"""A job that has learned to call the tool, and one that answers with a city."""
HYPERPARAMETERS = {"epochCount": 16, "learningRate": 0.02}


def question(city: str, number: int = 7) -> dict[str, Any]:
    """Return a user's message that both jobs have learned to answer."""
    return {"role": "user", "content": f"Where is parcel {number} for {city}?"}


def call_record(city: str, number: int) -> dict[str, Any]:
    """Return a conversation in which the tool is called, and its result is answered."""
    function = {"name": "find", "arguments": json.dumps({"city": city})}
    call = {"id": "c", "type": "function", "function": function}
    messages = [
        question(city, number),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": f"In {city}."},
        {"role": "assistant", "content": city},
    ]
    return {"messages": messages if number % 2 else messages[:2], "tools": [TOOL]}


def route_record(city: str, number: int) -> dict[str, Any]:
    """Return a conversation that is answered with a city."""
    return {"messages": [question(city, number), {"role": "assistant", "content": f"In {city}."}]}


def train_jobs(folder: Path, context: int = 512) -> Path:
    """Train both jobs on one tiny model, and return the home that they are in."""
    import chat_templates
    import tiny
    from job_files import write_job_file

    model = tiny.build_model(folder / "base", chat_template=chat_templates.QWEN25, context=context)
    home = folder / "home"
    for name, make in ((CALLER, call_record), (ROUTER, route_record)):
        records = [make(city, number) for number in range(4) for city in CITIES]
        path = write_job_file(
            folder / name, model, name=name, records=records, hyperparameters=HYPERPARAMETERS
        )
        command = [sys.executable, "-m", "cloudft", "submit", str(path), "--wait", "--quiet"]
        environ = os.environ | {"CLOUDFT_HOME": str(home)}
        subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
    return home


@dataclass(frozen=True)
class RunningServer:
    """A `cloudft serve`. `url` has no slash at its end; `announced` is what it has printed."""

    url: str
    announced: Mapping[str, Any]
    process: subprocess.Popen[str]

    def interrupt(self) -> None:
        """Send Ctrl-C."""
        self.process.send_signal(signal.SIGINT)


@contextlib.contextmanager
def running_server(
    home: Path,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    python: Sequence[str] = (),
) -> Iterator[RunningServer]:
    """Serve jobs of a home on a free port, and kill the server at the end.

    `python` is cloudft's interpreter; without it, one that has loaded its libraries.
    """
    if not python:
        import preloaded

        python = [preloaded.interpreter_path()]
    command = [*python, "-m", "cloudft", "serve", *arguments]
    process = subprocess.Popen(
        [*command, "--port", "0", "--output", "json"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CLOUDFT_HOME": str(home), **(environ or {})},
    )
    assert process.stdout is not None
    try:
        announced = json.loads(process.stdout.readline() or "{}")
        assert announced, "the server has ended"
        yield RunningServer(announced["url"], announced, process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    print(train_jobs(Path(sys.argv[1])))
