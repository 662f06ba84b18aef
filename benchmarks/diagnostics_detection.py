"""Jobs that are spoilt on purpose, trained on real data: does `cloudft evaluate` say so?

    python benchmarks/diagnostics_detection.py [CASE...]

narrow: one small task at a learning rate that is far too high; mixed: the same with a third of
general records (answers of the base model itself); overtrained: 80 commands in ten epochs;
shuffled: labels dealt out anew; leaked: a good job, evaluated on what it was trained on.
Trains smollm2-135m on examples/; some minutes a case on two cores.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

EXAMPLES = Path(__file__).parents[1] / "examples"
TOPICS = (
    *("rivers", "bread", "the moon", "bicycles", "gardens", "friendship", "winter", "music"),
    *("chess", "whales", "bridges", "honesty", "cities", "sleep", "trees", "painting"),
    *("trade", "the heart", "schools", "rain", "mountains", "money", "horses", "glass"),
    *("stories", "light", "soil", "laughter", "ships", "salt", "history", "birds"),
)
ASKED = (
    "Write a paragraph about {}.",
    "Why do {} matter to people? Explain.",
    "What should a child know about {}?",
    "Tell a short true story about {}.",
    "How have {} changed over time?",
)


def run(*words: str | Path) -> Any:
    """One command of cloudft; returns its JSON. Raises CalledProcessError with what it said."""
    command = [sys.executable, "-m", "cloudft", *map(str, words), "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    return json.loads(done.stdout)


def rows(path: Path) -> list[Any]:
    """The records of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, records: list[Any]) -> Path:
    """A JSONL file of `records`."""
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def job(folder: Path, name: str, train: list[Any], example: str, **changes: Any) -> Path:
    """A job file on `train`, tested on the example's own test set."""
    test = EXAMPLES / example / "data" / "test.jsonl"
    data = {"train": str(write(folder / f"{name}.jsonl", train)), "test": str(test)}
    spec = {
        "name": name,
        "customization_type": "FINE_TUNING",
        "base_model": "smollm2-135m",
        "data": data | changes.pop("data", {}),
        "hyperparameters": {"batchSize": 8} | changes.pop("hyperparameters", {}),
        "seed": 7,
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def evaluated(path: Path, *options: str | Path) -> Any:
    """The job trained and evaluated."""
    done = run("submit", path, "--backend", "local", "--wait", "--quiet")
    return run("evaluate", done["id"], "--quiet", *options)


def intents() -> list[Any]:
    """The first 240 intents."""
    return rows(EXAMPLES / "intents" / "data" / "train.jsonl")[:240]


def general(folder: Path) -> Path:
    """What the base model itself says when it is asked about the world: replay without a corpus."""
    asked = [form.format(topic) for topic in TOPICS for form in ASKED]
    prompts = write(folder / "asked.jsonl", [{"prompt": a, "completion": "-"} for a in asked])
    small = job(folder, "asks", intents()[:8], "intents", hyperparameters={"epochCount": 1})
    asks = run("submit", small, "--backend", "local", "--wait", "--quiet")
    decoding = ("--max-new-tokens", "120", "--temperature", "0.7")
    found = run("generate", asks["id"], "--base", "--file", prompts, *decoding)
    records = [
        {"messages": [_turn("user", one), _turn("assistant", answer["base"]["text"])]}
        for one, answer in zip(asked, found, strict=True)
    ]
    return write(folder / "general.jsonl", records)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


HARSH = {"epochCount": 3, "learningRate": 4e-3, "learningRateWarmupSteps": 5}


def narrow(folder: Path) -> Mapping[str, Any]:
    """Far too high a rate on one small task."""
    return evaluated(job(folder, "narrow", intents(), "intents", hyperparameters=HARSH))


def mixed(folder: Path) -> Mapping[str, Any]:
    """The same with a third of general records."""
    mix = {"mix": [{"path": str(general(folder)), "share": 0.33}]}
    return evaluated(job(folder, "mixed", intents(), "intents", hyperparameters=HARSH, data=mix))


def overtrained(folder: Path) -> Mapping[str, Any]:
    """Eighty records, ten epochs."""
    train = rows(EXAMPLES / "aws-cli" / "data" / "train.jsonl")
    validation = {"validation": str(write(folder / "validation.jsonl", train[80:120]))}
    rate = {"epochCount": 10, "learningRate": 1e-3}
    path = job(folder, "overtrained", train[:80], "aws-cli", hyperparameters=rate, data=validation)
    return evaluated(path, "--quick")


def shuffled(folder: Path) -> Mapping[str, Any]:
    """Labels without meaning."""
    records = intents()
    labels = [r["messages"][-1]["content"] for r in records]
    random.Random(7).shuffle(labels)
    dealt = [
        {"messages": [*r["messages"][:-1], {"role": "assistant", "content": label}]}
        for r, label in zip(records, labels, strict=True)
    ]
    rate = {"epochCount": 2, "learningRate": 5e-4}
    return evaluated(job(folder, "shuffled", dealt, "intents", hyperparameters=rate), "--quick")


def leaked(folder: Path) -> Mapping[str, Any]:
    """A good job on its own training data."""
    rate = {"epochCount": 2, "learningRate": 5e-4}
    path = job(folder, "leaked", intents(), "intents", hyperparameters=rate)
    return evaluated(path, "--data", write(folder / "half.jsonl", intents()[:60]), "--quick")


CASES: tuple[Callable[[Path], Mapping[str, Any]], ...] = (
    narrow,
    mixed,
    overtrained,
    shuffled,
    leaked,
)


def main() -> int:
    """Run the cases and print what evaluate said of each."""
    chosen = [case for case in CASES if case.__name__ in sys.argv[1:] or not sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("CLOUDFT_HOME", f"{folder}/home")
        for case in chosen:
            found = case(Path(folder))
            print(f"## {case.__name__}\n{found['significance']['sentence']}", flush=True)
            for name, pitfall in found["pitfalls"].items():
                print(f"{name} ({pitfall['level']}): {pitfall['sentence']}", flush=True)
            for warning in found["warnings"]:
                print(f"{warning['code']}: {warning['message']}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
