"""Verify an exported model in a runtime: `python -m local_backend.export.verify JOB_DIR FOLDER`.

The runtime runs FOLDER in an interpreter of its own, on the records that standard input has as one
JSON line, `{"records": [{"prompt", "text", "reply"?}], "maxNewTokens"}` (prompts as generate.py
takes them, texts to score as it does). What it makes of them is compared with the tuned model in
float32, unmerged: the prompt's tokens, the log-probabilities of the record's own answer, and the
greedy answer with its end. Standard output has `{"done", "total"}` after each record, and the
result as the last JSON line; its `difference` says in which layer the two differ
(`runtime_comparison.py`), and is null where they do not.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import torch

from local_backend.data.chat_messages import to_chat
from local_backend.errors import TrainerError
from local_backend.export.engine_client import MODULES, EngineProcess
from local_backend.export.engines.run import Engine
from local_backend.export.export_model import PROOF
from local_backend.export.runtime_comparison import (
    TOLERANCE,
    RuntimeRecord,
    find_difference,
    largest_difference,
)
from local_backend.export.tuned_model import load_tuned_model
from local_backend.inference.completion import (
    Prompt,
    ScoreItem,
    decode_completion,
    encode_prompt,
    generate_batch,
)
from local_backend.inference.generate import encode_scored
from local_backend.job_dir import JobDir
from local_backend.libraries import silence_libraries
from local_backend.models.load_model import LoadedModel
from local_backend.process_exit import exit_now
from local_backend.replies import ReplyWriter

Progress = Callable[[int, int], None]
"""Called after each record with how many are compared, of how many."""
FULL_PRECISION = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
"""Formats of a GGUF file that are no quantization."""


class VerifiedRecord(TypedDict):
    """One record in both: answers, and the log-likelihood of its own answer (`tokens` of it)."""

    ours: str
    theirs: str
    equal: bool
    finish: list[str]
    logLikelihoods: list[float]
    tokens: int


class Comparison(TypedDict):
    """What a runtime makes of an export, beside the tuned model.

    `tolerance` is of log-probabilities; null for quantized weights, which are measured instead.
    """

    tolerance: float | None
    maxDifference: float
    difference: dict[str, Any] | None
    records: list[VerifiedRecord]


class Verification(Comparison):
    """A comparison, with the runtime and the versions of its packages."""

    runtime: str
    versions: dict[str, str]


def read_tolerance(folder: Path) -> float | None:
    """Return the tolerance for an export's number format; None for quantized weights.

    Raise TrainerError for a folder that is no export.
    """
    try:
        proof = json.loads((folder / PROOF).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainerError(
            f"{folder} is no export: it has no readable {PROOF}.",
            fix="name a folder that `cloudft export` has written.",
        ) from error
    quantization = proof.get("quantization")
    if quantization is None:
        return TOLERANCE[proof.get("dtype", "float32")]
    full = FULL_PRECISION.get(quantization.lower())
    return None if full is None else TOLERANCE[full]


def conversation_of(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt in the form that chat templates take."""
    if "text" in prompt:
        return {"text": prompt["text"]}
    chat = to_chat(prompt, "converse")
    tools = {"tools": list(chat.tools)} if chat.tools else {}
    return {"messages": list(chat.messages), **tools}


def run_ours(loaded: LoadedModel, item: ScoreItem, new_tokens: int) -> RuntimeRecord:
    """Return what the tuned model makes of a record."""
    prompt = encode_prompt(loaded, item["prompt"])
    before, reply = encode_scored(loaded, item)
    [made] = generate_batch(loaded, [prompt], {"maxNewTokens": new_tokens})
    ends = [at for at, token in enumerate(made) if token in loaded.stop_ids]
    answer = made[: ends[0]] if ends else made
    completion = decode_completion(loaded, item["prompt"], made)
    return {
        "prompt": prompt,
        "plain": prompt,
        "answer": answer,
        "text": completion["text"],
        "finish": completion["finishReason"],
        "scores": score_tokens(loaded, [*before, *reply], len(before)),
    }


def score_tokens(loaded: LoadedModel, ids: Sequence[int], start: int) -> list[float]:
    """Return the log-probabilities of the tokens from `start` on."""
    if start >= len(ids):
        return []
    with torch.inference_mode():
        logits = loaded.model(input_ids=torch.tensor([list(ids)])).logits[0, start - 1 : -1]
    following = torch.tensor(ids[start:])[:, None]
    scores: list[float] = logits.double().log_softmax(-1).gather(1, following)[:, 0].tolist()
    return scores


def run_theirs(
    engine: Engine, loaded: LoadedModel, item: ScoreItem, ours: RuntimeRecord, limit: int
) -> RuntimeRecord:
    """Return what the runtime makes of a record; prompts and scored tokens are ours."""
    conversation = conversation_of(item["prompt"])
    text = loaded.tokenizer.decode(ours["prompt"])
    before, reply = encode_scored(loaded, item)
    made = engine.answer(ours["prompt"], limit)
    return {
        "prompt": engine.render(conversation),
        "plain": engine.render({"text": str(text)}),
        "answer": made["ids"],
        "text": decode_completion(loaded, item["prompt"], made["ids"])["text"],
        "finish": made["finish"],
        "scores": engine.score([*before, *reply], len(before)) if reply else [],
    }


def compare_records(
    loaded: LoadedModel,
    engine: Engine,
    request: dict[str, Any],
    tolerance: float | None,
    progress: Progress = lambda done, total: None,
) -> Comparison:
    """Run the records of a request in both, and compare them."""
    ours: list[RuntimeRecord] = []
    theirs: list[RuntimeRecord] = []
    limit = request["maxNewTokens"]
    for item in request["records"]:
        ours.append(run_ours(loaded, item, limit))
        theirs.append(run_theirs(engine, loaded, item, ours[-1], limit))
        progress(len(ours), len(request["records"]))
    difference = find_difference(ours, theirs, tolerance)
    pairs = list(zip(ours, theirs, strict=True))
    worst = (largest_difference(a["scores"], b["scores"])[0] for a, b in pairs)
    return {
        "tolerance": tolerance,
        "maxDifference": max(worst, default=0.0),
        "difference": asdict(difference) if difference else None,
        "records": [_summarize(a, b) for a, b in pairs],
    }


def verify_export(
    job_dir: JobDir,
    folder: Path,
    runtime: tuple[str, str],
    request: dict[str, Any],
    progress: Progress,
) -> Verification:
    """Run an export in a runtime and compare it with the tuned model. Raise TrainerError.

    `runtime` is its name in `--for`, and the interpreter that has it.
    """
    name, python = runtime
    tolerance = read_tolerance(folder)
    # First: a runtime that is not there, or refuses the model, says so at once.
    with EngineProcess(MODULES[name], folder, python) as engine:
        loaded = load_tuned_model(job_dir).loaded
        loaded.model.eval()
        loaded.model.config.use_cache = True
        comparison = compare_records(loaded, engine, request, tolerance, progress)
        return {**comparison, "runtime": name, "versions": engine.versions}


def _summarize(ours: RuntimeRecord, theirs: RuntimeRecord) -> VerifiedRecord:
    return {
        "ours": ours["text"],
        "theirs": theirs["text"],
        "equal": ours["answer"] == theirs["answer"],
        "finish": [ours["finish"], theirs["finish"]],
        "logLikelihoods": [math.fsum(ours["scores"]), math.fsum(theirs["scores"])],
        "tokens": len(ours["scores"]),
    }


def main() -> int:
    """Verify one export. Print progress, and the result or the error, as JSON lines."""
    parser = argparse.ArgumentParser(
        prog="python -m local_backend.export.verify", description=__doc__
    )
    parser.add_argument("job_dir", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--for", dest="runtime", choices=sorted(MODULES), required=True)
    parser.add_argument("--python", default=sys.executable, help="interpreter with the runtime")
    args = parser.parse_args()
    request = json.loads(sys.stdin.readline())
    silence_libraries()
    runtime = (args.runtime, args.python)
    try:
        with ReplyWriter() as reply:

            def progress(done: int, total: int) -> None:
                reply({"done": done, "total": total})

            folder = args.folder.resolve()
            result = verify_export(JobDir(args.job_dir), folder, runtime, request, progress)
            reply({**result})
    except KeyboardInterrupt:
        return 1
    return reply.status


if __name__ == "__main__":
    exit_now(main())
