"""Compare batched evaluation on this machine with one record after another.

    python benchmarks/evaluation_speed.py [--records 48] [--rounds 3]

The same model and records: greedy answers with `model.generate` and its KV cache, and the
references' log-likelihoods with one forward pass each, against what `local_backend` does. The two
ways alternate, and their results must be equal.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from smallest import ROOT, build_parser

from cloudft.backends.local.backend import LocalBackend
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from local_backend.inference import generate
from local_backend.inference.model_variants import BASE, ModelVariants
from local_backend.job_dir import JobDir
from local_backend.settings import read_settings

EXAMPLE = ROOT / "examples" / "intents"
NEW_TOKENS = 24
T = TypeVar("T", str, float)


def main() -> None:
    """Run both ways, for answers and for log-likelihoods."""
    parser = build_parser(__doc__)
    parser.add_argument("--records", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    count, rounds = (2, 1) if args.smallest else (args.records, args.rounds)
    models = load_base_model()
    records = [json.loads(line) for line in (EXAMPLE / "data" / "test.jsonl").open()]
    records = records[:: max(1, len(records) // count)][:count]
    prompts = [{"messages": record["messages"][:-1]} for record in records]
    requests = [
        {"prompt": prompt, "text": record["messages"][-1]["content"]}
        for prompt, record in zip(prompts, records, strict=True)
    ]
    print(f"{len(records)} records, {rounds} alternating rounds, {torch.get_num_threads()} threads")
    race(
        "answers",
        rounds,
        lambda: generate_one_by_one(models, prompts),
        lambda: generate_batched(models, prompts),
    )
    race(
        "likelihoods",
        rounds,
        lambda: score_one_by_one(models, requests),
        lambda: score_batched(models, requests),
    )


def load_base_model() -> ModelVariants:
    """Return the example's base model, loaded in this process."""
    with tempfile.TemporaryDirectory() as folder:
        # Only the job's folder is temporary: converted weights stay in the model cache.
        home = Home.from_environ(os.environ | {"CLOUDFT_HOME": folder})
        backend = LocalBackend(home)
        # The folder of a job that is never trained, as a session with the base model uses it.
        job_dir = JobDir(backend.base_model_folder(load_job(EXAMPLE / "cloudft.yaml")))
        return ModelVariants(job_dir, read_settings(job_dir))


def race(
    name: str,
    rounds: int,
    one_by_one: Callable[[], Sequence[T]],
    batched: Callable[[], Sequence[T]],
) -> None:
    """Time both ways alternately and require equal results."""
    seconds: dict[str, list[float]] = {"one by one": [], "batched": []}
    for _ in range(rounds):
        results = []
        for way, run in (("one by one", one_by_one), ("batched", batched)):
            started = time.monotonic()
            results.append(run())
            seconds[way].append(time.monotonic() - started)
        require_equal(*results)
    ratios = [a / b for a, b in zip(seconds["one by one"], seconds["batched"], strict=True)]
    for way, times in seconds.items():
        print(f"{name:<12} {way:<11} {statistics.median(times):7.2f} s")
    spread = f"({min(ratios):.2f}-{max(ratios):.2f})"
    print(f"{name:<12} ratio       {statistics.median(ratios):7.2f} {spread}")


def require_equal(left: Sequence[T], right: Sequence[T]) -> None:
    """Raise AssertionError unless texts are equal, or log-likelihoods to 1e-3 nats."""
    for a, b in zip(left, right, strict=True):
        assert a == b if isinstance(a, str) else math.isclose(a, b, abs_tol=1e-3), (a, b)


def generate_one_by_one(models: ModelVariants, prompts: Sequence[Any]) -> list[str]:
    """Return the answers of a loop over `model.generate`."""
    request = {"maxNewTokens": NEW_TOKENS}
    with models.variant(BASE) as loaded:
        answers = [
            generate.generate_batch(loaded, [generate.encode_prompt(loaded, prompt)], request)[0]
            for prompt in prompts
        ]
        pairs = zip(prompts, answers, strict=True)
        return [generate.decode_completion(loaded, prompt, ids)["text"] for prompt, ids in pairs]


def generate_batched(models: ModelVariants, prompts: Sequence[Any]) -> list[str]:
    """Return the answers of the model process."""
    request = {"prompts": prompts, "variants": [BASE], "maxNewTokens": NEW_TOKENS}
    answers = sorted(generate.answer_prompts(models, request), key=lambda answer: answer["index"])
    return [answer["text"] for answer in answers]


def score_one_by_one(models: ModelVariants, requests: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the log-likelihoods with a forward pass for each record, with all of its logits."""
    scores = []
    with models.variant(BASE) as loaded, torch.inference_mode():
        for request in requests:
            prompt, text = generate.encode_scored(loaded, request)
            ids = torch.tensor([[*prompt, *text]])
            logits = loaded.model(input_ids=ids).logits
            log_probs = logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
            scores.append(float(log_probs.gather(1, torch.tensor(text)[:, None]).sum()))
    return scores


def score_batched(models: ModelVariants, requests: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the log-likelihoods of the model process, in the order of the requests."""
    request = {"score": requests, "variants": [BASE]}
    replies = sorted(generate.score_continuations(models, request), key=lambda r: r["index"])
    return [reply["logLikelihood"] for reply in replies]


if __name__ == "__main__":
    main()
