"""serve: an OpenAI-compatible server of tuned models and their base."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, complete_job, console_options
from cloudft.cli.param_types import PORT

if TYPE_CHECKING:
    from socket import socket

    from cloudft.serving.engine import Engine
    from cloudft.storage.store import JobRecord

DEFAULT_PORT = 8000
"""The port of vLLM's server: what is configured for one fits the other."""
BATCH = click.IntRange(1, 1024)
WAITING = click.IntRange(0, 100_000)


@command(
    "serve",
    epilog="\b\nExamples:\n  cloudft serve ticket-router\n"
    "  cloudft serve ticket-router summarizer --port 0 --output json\n"
    "  cloudft serve - --host 0.0.0.0 --api-key-file key.txt\n"
    "  curl http://127.0.0.1:8000/v1/models",
)
@click.argument(
    "references", metavar="JOB...", nargs=-1, required=True, shell_complete=complete_job
)
@click.option(
    "--port",
    type=PORT,
    default=DEFAULT_PORT,
    show_default=True,
    help="Port to listen on; 0 picks a free one.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; any but loopback needs an API key.",
)
@click.option(
    "--api-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Answer only requests with the key in this file (or in CLOUDFT_SERVE_API_KEY). The key is"
    " no argument: `ps` shows those to every user of the machine.",
)
@click.option(
    "--max-batch", type=BATCH, default=32, show_default=True, help="Answers generated at once."
)
@click.option(
    "--max-waiting",
    type=WAITING,
    default=256,
    show_default=True,
    help="Requests that may wait for them; further ones are refused with status 429.",
)
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Format of the weights; auto is bfloat16 where this machine computes it, else float32.",
)
@console_options
def serve_command(
    references: tuple[str, ...],
    port: int,
    host: str,
    api_key_file: Path | None,
    max_batch: int,
    max_waiting: int,
    dtype: str,
    console: Console,
) -> int:
    """Serve tuned models and their base by OpenAI's API, for any of its clients.

    The base is loaded once; a request's `model` picks the adapter. Requests are answered in one
    batch as they come. /v1/chat/completions, /v1/completions, /v1/models, /health and /metrics
    (for Prometheus) are there. Ctrl-C ends the server when the answers under way have ended; a
    second one ends it at once. With --output json the first line on standard output is one object,
    printed when the models are loaded.

    \b
    For load beyond one process, vLLM serves the export:
      cloudft export ticket-router served --for vllm
      vllm serve served --dtype float32 --served-model-name ticket-router
    """  # noqa: D301  (\b is click's mark of lines that are not wrapped)
    from cloudft.serving.api_key import read_api_key, require_key_for
    from cloudft.serving.http.server import SERVER, require_extra
    from cloudft.web.listening_socket import bind_socket

    require_extra()
    key = read_api_key(api_key_file, os.environ)
    require_key_for(host, key)
    records = _open_records(references)
    with bind_socket(host, port, SERVER) as bound:
        engine = _open_engine(records, max_batch, max_waiting, dtype, console)
        try:
            return _serve(engine, bound, key, api_key_file, console)
        finally:
            engine.close()


def _open_records(references: tuple[str, ...]) -> list[JobRecord]:
    """Return the jobs, each once. Raise UsageError for one that is not on this machine."""
    from cloudft.backends.local.backend import LocalBackend
    from cloudft.cli.jobs import open_job
    from cloudft.errors import UsageError

    records: dict[str, JobRecord] = {}
    for reference in references:
        record, backend, _ = open_job(reference)
        if not isinstance(backend, LocalBackend):
            raise UsageError(
                f"{record.id} was trained on {record.backend}: its model is not on this machine",
                fix=f"name jobs of the local backend; `cloudft deploy {record.id}` serves it there"
                f" if {record.backend} can.",
            )
        records[record.id] = record
    return list(records.values())


def _open_engine(
    records: Sequence[JobRecord], max_batch: int, max_waiting: int, dtype: str, console: Console
) -> Engine:
    """Load the models, with a note after two seconds. Raise TrainerError, JobStateConflict."""
    from cloudft.backends.local.backend import LocalBackend
    from cloudft.cli.progress import note_after_delay
    from cloudft.serving.engine_process import describe_local_job, open_engine
    from cloudft.serving.served_names import name_models
    from cloudft.storage.home import Home

    backend = LocalBackend(Home.from_environ())
    described = [describe_local_job(backend, record.id) for record in records]
    jobs = name_models(described, [record.name for record in records])
    environment = backend.program_environment(jobs[0].folder)
    with note_after_delay(console, f"loading {jobs[0].base} for {len(jobs)} job(s) ..."):
        return open_engine(jobs, environment, dtype=dtype, rows=max_batch, max_waiting=max_waiting)


def _serve(
    engine: Engine, bound: socket, key: str | None, key_file: Path | None, console: Console
) -> int:
    """Serve until Ctrl-C. Return 0 where every answer has ended, 130 where they were cut off."""
    from cloudft.cli import startup
    from cloudft.cli.errors import EXIT_INTERRUPTED
    from cloudft.serving.http.access import AccessRules
    from cloudft.serving.http.objects import tuned_first
    from cloudft.serving.http.server import serve_engine

    startup.restore_garbage_collection()

    def announce() -> None:
        url, names = _url(bound), [model.name for model in tuned_first(engine.models)]
        if console.is_json:
            from cloudft.cli.output import json_line

            click.echo(json_line({"url": url, "models": names}))
            return
        click.echo(url)
        console.note(_example(url, names, _key_header(key, key_file)))

    def end() -> None:
        console.note("ending when the answers under way have ended; Ctrl-C ends them now ...")

    is_complete = serve_engine(engine, AccessRules(key), bound, on_ready=announce, on_end=end)
    return 0 if is_complete else EXIT_INTERRUPTED


def _url(bound: socket) -> str:
    """Return the address that clients here use."""
    host, port, *_ = bound.getsockname()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _key_header(key: str | None, key_file: Path | None) -> str:
    """Return the option of curl that sends the key, without the key itself: "" where none is."""
    if key is None:
        return ""
    value = "$CLOUDFT_SERVE_API_KEY" if key_file is None else f"$(cat {shlex.quote(str(key_file))})"
    return f' -H "Authorization: Bearer {value}"'


def _example(url: str, names: Sequence[str], key_header: str) -> str:
    """Return what is served, and a first request to copy."""
    body = json.dumps({"model": names[0], "messages": [{"role": "user", "content": "Hello"}]})
    return (
        f"serves {', '.join(names)}; clients use {url}/v1 as their base_url (Ctrl-C ends it)\n"
        f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key_header} \\\n"
        f"    -d {shlex.quote(body)}"
    )
