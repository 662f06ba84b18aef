"""Run `cloudft ...` in a process that is forked from one which has imported all of it.

The process has its own standard streams, environment, folder and exit code, as `python -m cloudft`
has. It saves the start of the interpreter and the imports, half a second of each call. A test of
that start, or one that hooks into it, has to start an interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from cli_commands import MODULES
from preloaded import PYTHON, restore_process_state

from cloudft.cli.main import main

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    sorted(
        {
            *MODULES,
            *("cloudft.backends.local.backend", "cloudft.backends.bedrock.backend"),
            *(
                "cloudft.backends.sagemaker.backend",
                "cloudft.backends.bedrock.model_import.backend",
            ),
            *(
                "cloudft.data.checks.check",
                "cloudft.data.staging.stage",
                "cloudft.jobs.lifecycle",
                "cloudft.storage.store",
            ),
            *(
                "cloudft.endpoint.build",
                "cloudft.endpoint.server",
                "cloudft.endpoint.moto.replay_log",
                "boto3",
                "rich.console",
            ),
            *("moto.moto_server.werkzeug_app", "scipy.stats", "scipy.optimize"),
        }
    )
)


def start_cli(
    arguments: Sequence[str | Path],
    *,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    streams: Sequence[str | Path] = (os.devnull, os.devnull, os.devnull),
) -> ForkServerProcess:
    """Start `cloudft` with these arguments. `streams` are the files of stdin, stdout and stderr."""
    environ = dict(os.environ if env is None else env)
    target_arguments = (
        [str(argument) for argument in arguments],
        str(cwd or Path.cwd()),
        environ,
        [str(path) for path in streams],
    )
    process = FORKSERVER.Process(target=_become_cli, args=target_arguments)
    process.start()
    return process


def run_cli(
    arguments: Sequence[str | Path],
    *,
    timeout: float,
    input: str = "",
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Run `cloudft` with these arguments, as `subprocess.run` does with captured output."""
    with tempfile.TemporaryDirectory(prefix="cloudft-run-") as folder:
        streams = [Path(folder, name) for name in ("in", "out", "err")]
        streams[0].write_text(input, encoding="utf-8")
        process = start_cli(arguments, streams=streams, **options)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["cloudft", *map(str, arguments)], timeout)
        output = [path.read_text("utf-8") if path.exists() else "" for path in streams[1:]]
        return subprocess.CompletedProcess(list(arguments), process.exitcode, *output)


def _become_cli(
    arguments: list[str], folder: str, environ: dict[str, str], streams: Sequence[str]
) -> None:
    """Run `cloudft` in a process just forked."""
    modes = (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_APPEND] * 2)
    for number, (path, mode) in enumerate(zip(streams, modes, strict=True)):
        descriptor = os.open(path, mode, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    restore_process_state(folder, environ)
    sys.argv, sys.executable = ["cloudft", *arguments], environ.get(PYTHON, sys.executable)
    main()
