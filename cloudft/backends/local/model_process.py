"""Inference in a child process of the trainer: requests and replies as JSON lines."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from cloudft.backends.export_options import ExportOptions
from cloudft.backends.local.warm_process import ForkedProgram, WarmProcess
from cloudft.errors import TrainerError
from cloudft.inference import (
    Answer,
    AnswerDelta,
    AnswerEnd,
    GenerationConfig,
    InferenceSession,
    Likelihood,
    LocalGenerationConfig,
    ModelDescription,
    Prompt,
    ScoringRequest,
    StreamEvent,
    SupportsLogLikelihood,
    SupportsStreaming,
    SupportsTokens,
    TokenAlternative,
    TokenProbability,
)


class ModelProcess(InferenceSession, SupportsLogLikelihood, SupportsStreaming, SupportsTokens):
    """A process that has loaded a job's models and answers until it is closed.

    Not thread-safe, except for `cancel`. Raise TrainerError when the models can't be loaded.
    """

    def __init__(
        self, job_dir: Path, environment: Mapping[str, str], warm: WarmProcess | None = None
    ) -> None:
        self._writing = threading.Lock()
        self._is_streaming = False
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115  (closed by close)
        forked = warm.start_generate(job_dir, self._noise.fileno(), environment) if warm else None
        self._process: ForkedProgram | subprocess.Popen[str] = forked or subprocess.Popen(
            [sys.executable, "-m", "local_backend.inference.generate", str(job_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            text=True,
            encoding="utf-8",
            env=dict(environment),
            start_new_session=True,
        )
        try:
            if "ready" not in next(self._read_replies(), {}):
                raise self._broken_off_error()
        except BaseException:
            self.close()
            raise

    def generate(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        """Yield every answer as it is generated. Raise TrainerError."""
        request = {"prompts": _prompts(prompts), **_settings(variants, decoding)}
        for reply in self._exchange(request):
            yield _answer(reply, reply["index"])

    def stream(
        self, prompt: Prompt, variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[StreamEvent]:
        """Yield the parts of each answer as they are generated. Raise TrainerError.

        After an error of the prompt (it is longer than the context) the process remains usable.
        """
        [request] = _prompts([prompt])
        self._send({"stream": request, **_settings(variants, decoding)})
        # Not before: a cancel that comes before its stream is ignored.
        self._is_streaming = True
        replies = self._read_until_done()
        try:
            for reply in replies:
                if "delta" in reply:
                    yield AnswerDelta(
                        reply["variant"], reply["delta"], reply["reasoning"], reply["tokens"]
                    )
                else:
                    yield AnswerEnd(_answer(reply, 0), tuple(reply["ids"]))
        except GeneratorExit:
            self.cancel()
            for _ in replies:  # the next request must not get what is left of this one
                pass
            raise
        finally:
            self._is_streaming = False

    def cancel(self) -> None:
        """End the stream that is under way, within one token."""
        if self._is_streaming:
            self._send({"cancel": True})

    def token_probabilities(
        self, prompt: Prompt, token_ids: Sequence[int], variants: Sequence[str], *, top: int = 5
    ) -> Mapping[str, Sequence[TokenProbability]]:
        """Return the probability of each token of an answer, by variant. Raise TrainerError."""
        [request] = _prompts([prompt])
        found: dict[str, list[TokenProbability]] = {name: [] for name in variants}
        given = {"prompt": request, "ids": list(token_ids)}
        rating = {"probabilities": given, "variants": list(variants), "top": top}
        for reply in self._exchange(rating):
            best = [
                TokenAlternative(one["token"], one["text"], one["probability"])
                for one in reply["top"]
            ]
            found[reply["variant"]].append(
                TokenProbability(
                    reply["token"], reply["text"], reply["probability"], reply["rank"], best
                )
            )
        return found

    def describe(self) -> ModelDescription:
        """Return the models' size. Raise TrainerError."""
        [reply] = self._exchange({"describe": True})
        return ModelDescription(
            reply["context"], reply["parameters"], reply["device"], reply["residentBytes"]
        )

    def template_features(self) -> frozenset[str]:
        """Return what the chat template renders besides texts. Raise TrainerError."""
        [reply] = self._exchange({"features": True})
        return frozenset(reply["features"])

    def model_identities(self) -> Mapping[str, str]:
        """Return the sha256 of each variant's weights. Raise TrainerError."""
        return {name: reply["identity"] for name, reply in self._identities.items()}

    def answer_keys(self) -> Mapping[str, str]:
        """Return the sha256 of what decides each variant's answers. Raise TrainerError."""
        return {name: reply["answerKey"] for name, reply in self._identities.items()}

    @cached_property
    def _identities(self) -> Mapping[str, Mapping[str, str]]:
        return {reply["variant"]: reply for reply in self._exchange({"identities": True})}

    def loglikelihood(
        self, requests: Sequence[ScoringRequest], variants: Sequence[str]
    ) -> Iterator[Likelihood]:
        """Yield the likelihood of each continuation and variant. Raise TrainerError."""
        prompts = _prompts([one.prompt for one in requests])
        scored = [
            {"prompt": p, "text": r.text} | ({"reply": r.reply} if r.reply else {})
            for p, r in zip(prompts, requests, strict=True)
        ]
        return self._likelihoods({"score": scored, "variants": list(variants)})

    def loglikelihood_rolling(
        self, texts: Sequence[str], variants: Sequence[str], *, window: int | None = None
    ) -> Iterator[Likelihood]:
        """Yield the likelihood of each whole document and variant. Raise TrainerError."""
        request = {"texts": list(texts), "window": window, "variants": list(variants)}
        return self._likelihoods(request)

    def _likelihoods(self, request: Mapping[str, object]) -> Iterator[Likelihood]:
        for reply in self._exchange(request):
            yield Likelihood(
                index=reply["index"],
                variant=reply["variant"],
                log_likelihood=reply["logLikelihood"],
                tokens=reply["tokens"],
                greedy=reply["greedy"],
            )

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """Return the number of tokens of each prompt. Raise TrainerError."""
        return [reply["tokens"] for reply in self._exchange({"count": _prompts(prompts)})]

    @property
    def is_alive(self) -> bool:
        """Return whether the process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.communicate()
        self._noise.close()

    def _exchange(self, request: Mapping[str, object]) -> Iterator[dict[str, Any]]:
        self._send(request)
        yield from self._read_until_done()

    def _read_until_done(self) -> Iterator[dict[str, Any]]:
        for reply in self._read_replies():
            if "done" in reply:
                return
            yield reply
        raise self._broken_off_error()

    def _send(self, request: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        # A child that exits before it has read the request is detected by its missing replies.
        with self._writing, contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def _read_replies(self) -> Iterator[dict[str, Any]]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            reply = json.loads(line)
            if "error" in reply:
                raise TrainerError(reply["error"], fix=reply["fix"])
            yield reply

    def _broken_off_error(self) -> TrainerError:
        return TrainerError(
            f"the model's process exited: {_last_line(self._noise)}",
            fix="if memory ran out, ask fewer prompts at a time.",
        )


def _settings(variants: Sequence[str], decoding: GenerationConfig) -> dict[str, object]:
    """Return the members of a request that say who answers, and how."""
    settings: dict[str, object] = {
        "variants": list(variants),
        "maxNewTokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "topP": decoding.top_p,
        "seed": decoding.seed,
    }
    if isinstance(decoding, LocalGenerationConfig):
        settings["topK"] = decoding.top_k
    return settings


def _answer(reply: Mapping[str, Any], index: int) -> Answer:
    return Answer(
        index=index,
        variant=reply["variant"],
        text=reply["text"],
        tokens=reply["tokens"],
        finish_reason=reply["finishReason"],
        reasoning=reply.get("reasoning", ""),
        calls=reply.get("calls", ()),
        prompt_tokens=reply.get("promptTokens", 0),
    )


def _prompts(prompts: Sequence[Prompt]) -> list[dict[str, object]]:
    return [prompt_to_request(prompt) for prompt in prompts]


def prompt_to_request(prompt: Prompt) -> dict[str, object]:
    """Return a prompt as the trainer's programs take it."""
    if prompt.text is not None:
        return {"text": prompt.text}
    tools = {"toolConfig": prompt.tool_config} if prompt.tool_config else {}
    return {"messages": list(prompt.messages), **tools}


def generate_answers(
    job_dir: Path,
    prompts: Sequence[Prompt],
    variants: Sequence[str],
    decoding: GenerationConfig,
    environment: Mapping[str, str],
) -> Iterator[Answer]:
    """Yield every answer; kill the process when the iterator is closed or exhausted."""
    with contextlib.closing(ModelProcess(job_dir, environment)) as child:
        yield from child.generate(prompts, variants, decoding)


def run_export(
    job_dir: Path, out: Path, options: ExportOptions, environment: Mapping[str, str]
) -> Mapping[str, Any]:
    """Run the trainer's export; return its proof of equivalence."""
    command = [sys.executable, "-m", "local_backend.export", str(job_dir), str(out)]
    command += ["--format", options.format, "--dtype", options.dtype]
    command += ["--quantize", options.quantization]
    given = {"--for": options.runtime, "--context": options.context, "--base": options.base}
    command += [f"{name}={value}" for name, value in given.items() if value is not None]
    read_end, write_end = os.pipe()
    try:
        done = subprocess.run(
            [*command, "--end-with-stdin"],
            stdin=read_end,
            capture_output=True,
            text=True,
            check=False,
            env=dict(environment),
        )
    finally:
        os.close(read_end)
        os.close(write_end)
    try:
        proof: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TrainerError(f"the export exited with status {done.returncode}: {last}") from None
    if "error" in proof:
        raise TrainerError(proof["error"], fix=proof["fix"])
    return proof


def _last_line(noise: IO[bytes]) -> str:
    noise.seek(0)
    lines = noise.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "no message"
