"""Talking to the trainer's models: a child process that is asked in JSON lines."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cloudft.backends.base import Answer, Decoding, Prompt
from cloudft.errors import TrainerError


def answers(
    job_dir: Path,
    prompts: Sequence[Prompt],
    variants: Sequence[str],
    decoding: Decoding,
    environment: Mapping[str, str],
) -> Iterator[Answer]:
    """Every answer as it comes. The child is gone when the iterator is closed or exhausted."""
    command = [sys.executable, "-m", "local_backend.generate", str(job_dir)]
    with (
        tempfile.TemporaryFile() as noise,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            text=True,
            encoding="utf-8",
            env=dict(environment),
            start_new_session=True,
        ) as child,
    ):
        try:
            complete = yield from _ask(child, _request(prompts, variants, decoding))
        finally:
            child.kill()
        if not complete:
            raise TrainerError(
                f"the model's process broke off: {_last_line(noise)}",
                fix="if memory ran out, ask fewer prompts at a time.",
            )


def _request(prompts: Sequence[Prompt], variants: Sequence[str], decoding: Decoding) -> str:
    return json.dumps(
        {
            "prompts": [
                {"text": p.text} if p.text is not None else {"messages": list(p.messages)}
                for p in prompts
            ],
            "variants": list(variants),
            "maxNewTokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "topP": decoding.top_p,
            "seed": decoding.seed,
        }
    )


def _ask(child: subprocess.Popen[str], request: str) -> Generator[Answer, None, bool]:
    """Hand the answers on; returns False when the child ended before the last one."""
    assert child.stdin is not None and child.stdout is not None
    for line in child.stdout:
        reply = json.loads(line)
        if "error" in reply:
            raise TrainerError(reply["error"], fix=reply["fix"])
        if "ready" in reply:
            # A child that dies before it has read the request is told by its missing answers.
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(request + "\n")
                child.stdin.flush()
        elif "done" in reply:
            return True
        else:
            yield Answer(
                index=reply["index"],
                variant=reply["variant"],
                text=reply["text"],
                tokens=reply["tokens"],
                finish_reason=reply["finishReason"],
            )
    return False


def export(
    job_dir: Path, out: Path, dtype: str, environment: Mapping[str, str]
) -> Mapping[str, Any]:
    """Run the trainer's export; returns its proof."""
    command = [sys.executable, "-m", "local_backend.export", str(job_dir), str(out)]
    done = subprocess.run(
        [*command, "--dtype", dtype],
        capture_output=True,
        text=True,
        check=False,
        env=dict(environment),
    )
    try:
        proof: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TrainerError(f"the export broke off: {last}") from None
    if "error" in proof:
        raise TrainerError(proof["error"], fix=proof["fix"])
    return proof


def _last_line(noise: Any) -> str:
    noise.seek(0)
    lines = noise.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "no message"
