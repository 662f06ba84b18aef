"""Evaluation on this machine: batches against one record after another, same model, same records.

Greedy answers by `model.generate` with its KV cache, and the likelihood of the references by one
forward pass each, are held against what `local_backend` does, in turns. Prints a table.

    python benchmarks/evaluation_speed.py [--records 48] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cloudft.backends import make_backend
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from local_backend.inference import generate, log_likelihood
from local_backend.inference.model_variants import BASE, ModelVariants
from local_backend.job_dir import JobDir
from local_backend.settings import read_settings

EXAMPLE = Path(__file__).parents[1] / "examples" / "intents"
NEW_TOKENS = 24


def main() -> None:
    """Both ways in turns, for answers and for likelihoods."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder), Home.from_environ().model_cache)
        local: Any = make_backend("local", home)
        job = local.untrained(load_job(EXAMPLE / "cloudft.yaml"))
        job_dir = JobDir(home.jobs / job)
        models = ModelVariants(job_dir, read_settings(job_dir))
    records = [json.loads(line) for line in (EXAMPLE / "data" / "test.jsonl").open()]
    records = records[:: max(1, len(records) // args.records)][: args.records]
    asked = [{"messages": r["messages"][:-1]} for r in records]
    texts = [r["messages"][-1]["content"] for r in records]
    wanted = [{"prompt": p, "text": t} for p, t in zip(asked, texts, strict=True)]
    print(
        f"{len(records)} records, {args.rounds} rounds in turns, {torch.get_num_threads()} threads"
    )
    race("answers", args.rounds, lambda: one_by_one(models, asked), lambda: together(models, asked))
    race(
        "likelihoods",
        args.rounds,
        lambda: each(models, wanted),
        lambda: likelihoods(models, wanted),
    )


def race(name: str, rounds: int, plain: Callable[[], Any], ours: Callable[[], Any]) -> None:
    """Time both in turns and see that they say the same."""
    took: dict[str, list[float]] = {"one by one": [], "together": []}
    for _ in range(rounds):
        found = []
        for way, run in (("one by one", plain), ("together", ours)):
            began = time.monotonic()
            found.append(run())
            took[way].append(time.monotonic() - began)
        same(*found)
    ratios = [a / b for a, b in zip(took["one by one"], took["together"], strict=True)]
    for way, seconds in took.items():
        print(f"{name:<12} {way:<11} {statistics.median(seconds):7.2f} s")
    spread = f"({min(ratios):.2f}-{max(ratios):.2f})"
    print(f"{name:<12} ratio       {statistics.median(ratios):7.2f} {spread}")


def same(plain: list[Any], ours: list[Any]) -> None:
    """Equal texts; log-likelihoods equal to 1e-3 nats."""
    for a, b in zip(plain, ours, strict=True):
        assert a == b if isinstance(a, str) else math.isclose(a, b, abs_tol=1e-3), (a, b)


def one_by_one(models: ModelVariants, asked: list[Any]) -> list[str]:
    """What a loop over `model.generate` does."""
    request = {"maxNewTokens": NEW_TOKENS}
    with models.variant(BASE) as loaded:
        return [
            generate.generate_batch(loaded, [generate.encode_prompt(loaded, prompt)], request)[0][
                "text"
            ]
            for prompt in asked
        ]


def together(models: ModelVariants, asked: list[Any]) -> list[str]:
    """What the child does."""
    request = {"prompts": asked, "variants": [BASE], "maxNewTokens": NEW_TOKENS}
    found = sorted(generate.answer_prompts(models, request), key=lambda reply: reply["index"])
    return [reply["text"] for reply in found]


def each(models: ModelVariants, wanted: list[Any]) -> list[float]:
    """A forward pass a record, with all of its logits."""
    found = []
    with models.variant(BASE) as loaded, torch.inference_mode():
        for one in wanted:
            prompt = generate.encode_prompt(loaded, one["prompt"])
            [text] = log_likelihood.tokenize_texts(loaded, [one["text"]])
            ids = torch.tensor([[*prompt, *text]])
            said = loaded.model(input_ids=ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
            found.append(float(said.gather(1, torch.tensor(text)[:, None]).sum()))
    return found


def likelihoods(models: ModelVariants, wanted: list[Any]) -> list[float]:
    """What the child does."""
    request = {"score": wanted, "variants": [BASE]}
    return [reply["logLikelihood"] for reply in generate.score_continuations(models, request)]


if __name__ == "__main__":
    main()
