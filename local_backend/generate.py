"""`python -m local_backend.generate JOB_DIR`: a child that loads a job's models once and answers.

Requests come as JSON lines on standard input:

    {"count": [prompt, ...]}
    {"prompts": [{"messages": [{"role", "content"}, ...]} | {"text": "..."}],
     "variants": ["tuned", "base"], "maxNewTokens": 256, "temperature": 0.0, "topP": 1.0, "seed": 7}

Answers go as JSON lines to standard output: one `{"index", "variant", "text", "tokens",
"finishReason"}` a prompt and variant (of a count `{"tokens"}` a prompt), then `{"done": true}`; or
`{"error", "fix"}`.
`temperature` 0 decodes greedily. The prompt is rendered and tokenised just as it was for training.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from local_backend.device import choose_device, choose_dtype
from local_backend.errors import TrainerError
from local_backend.job_dir import ARTIFACTS, MODEL, JobDir
from local_backend.model import Loaded, load, load_tokenizer, load_trained
from local_backend.report import quiet_libraries
from local_backend.settings import Settings, read_settings
from local_backend.template import prompt_pieces
from local_backend.weights import locate

TOGETHER = 16
"""Prompts answered in one batch."""
TUNED, BASE = "tuned", "base"


class Models:
    """The tuned model and its base, sharing weights where the method allows it."""

    def __init__(self, job_dir: JobDir, settings: Settings) -> None:
        device = choose_device(settings.device)
        dtype = choose_dtype("auto", device) if device.type == "cuda" else torch.float32
        folder = job_dir / ARTIFACTS / MODEL
        source = locate(settings.model_name, settings.weights)
        self.base = load(source, dtype, device)
        self.tuned = self.base
        self.trained = folder.is_dir()
        if not self.trained:
            self.base.model.eval()
            self.base.model.config.use_cache = True
            return
        if settings.method == "full":
            self.base.model.eval()
            self.tuned = load(str(folder), dtype, device)
        load_trained(folder, self.tuned, settings.method)
        self.tuned.tokenizer = self.base.tokenizer = load_tokenizer(str(folder))[0]
        self.tuned.model.config.use_cache = self.base.model.config.use_cache = True

    @contextlib.contextmanager
    def variant(self, name: str) -> Iterator[Loaded]:
        """The model called `name`: the base is the tuned one with its adapters switched off."""
        if name == TUNED and not self.trained:
            raise TrainerError("The job has left no model yet.", fix="wait until it is Completed.")
        if not self.trained:
            yield self.base
        elif name == BASE and self.base is self.tuned:
            with self.tuned.model.disable_adapter():
                yield self.tuned
        else:
            yield self.base if name == BASE else self.tuned


def prompt_ids(loaded: Loaded, prompt: dict[str, Any]) -> list[int]:
    """The tokens of one prompt: a conversation to answer, or raw text to go on with."""
    if "text" in prompt:
        pieces = [prompt["text"]]
    else:
        pieces = prompt_pieces(loaded.tokenizer, prompt["messages"], loaded.stop_texts)
    tokenised = loaded.tokenizer(pieces, add_special_tokens=False)["input_ids"]
    ids: list[int] = [token for piece in tokenised for token in piece]
    if not ids:
        raise TrainerError("The prompt is empty.", fix="give it some text.")
    room = loaded.context_length
    if len(ids) >= room:
        raise TrainerError(
            f"The prompt has {len(ids)} tokens; the model was made for {room}.",
            fix="shorten the prompt.",
        )
    return ids


def answer(
    loaded: Loaded, prompts: Sequence[list[int]], request: dict[str, Any]
) -> list[dict[str, Any]]:
    """Continue each prompt; all of them in one batch, padded on the left."""
    longest = max(map(len, prompts))
    pad = loaded.tokenizer.pad_token_id or 0
    rows = [[pad] * (longest - len(ids)) + ids for ids in prompts]
    mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]
    device = loaded.model.device
    with torch.inference_mode():
        output = loaded.model.generate(
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=decoding(loaded, request, longest),
        )
    return [completion(loaded, row[longest:].tolist()) for row in output]


def decoding(loaded: Loaded, request: dict[str, Any], prompt_length: int) -> Any:
    """How to decode: greedy at temperature 0, else by sampling."""
    from transformers import GenerationConfig

    room = loaded.context_length - prompt_length
    options: dict[str, Any] = {"do_sample": False}
    if request.get("temperature"):
        options = {
            "do_sample": True,
            "temperature": request["temperature"],
            "top_p": request.get("topP", 1.0),
            "top_k": 0,
        }
    return GenerationConfig(
        max_new_tokens=max(1, min(request.get("maxNewTokens", 256), room)),
        eos_token_id=loaded.stops,
        pad_token_id=loaded.tokenizer.pad_token_id or 0,
        **options,
    )


def completion(loaded: Loaded, ids: list[int]) -> dict[str, Any]:
    """The answer up to its end token."""
    ends = [i for i, token in enumerate(ids) if token in loaded.stops]
    kept = ids[: ends[0]] if ends else ids
    return {
        "text": loaded.tokenizer.decode(kept, skip_special_tokens=True),
        "tokens": len(kept),
        "finishReason": "stop" if ends else "length",
    }


def answers(models: Models, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every answer that `request` asks for, prompts of like length together."""
    torch.manual_seed(request.get("seed", 0))
    for name in request.get("variants", [TUNED]):
        with models.variant(name) as loaded:
            prompts = [prompt_ids(loaded, p) for p in request["prompts"]]
            order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
            for at in range(0, len(order), TOGETHER):
                part = order[at : at + TOGETHER]
                replies = answer(loaded, [prompts[i] for i in part], request)
                for index, reply in zip(part, replies, strict=True):
                    yield {"index": index, "variant": name, **reply}


def counts(models: Models, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """How many tokens each prompt is."""
    for prompt in request["count"]:
        yield {"tokens": len(prompt_ids(models.tuned, prompt))}


def main() -> int:
    """Answer until standard input ends. What libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=replies, flush=True)

    job_dir = JobDir(Path(sys.argv[1]))
    try:
        quiet_libraries()
        models = Models(job_dir, read_settings(job_dir))
        say({"ready": True})
        for line in sys.stdin:
            request = json.loads(line)
            replies_of = counts if "count" in request else answers
            for reply in replies_of(models, request):
                say(reply)
            say({"done": True})
    except TrainerError as error:
        say({"error": error.message, "fix": error.fix})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
