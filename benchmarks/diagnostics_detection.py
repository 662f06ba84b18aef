"""Train jobs that are broken on purpose on real data, and print what `cloudft evaluate` reports.

    python benchmarks/diagnostics_detection.py [CASE...]

narrow: one small task at a learning rate that is far too high; mixed: the same with one third
general records (answers of the base model itself); overtrained: 80 commands in ten epochs;
shuffled: labels assigned at random; leaked: a good job, evaluated on its training records.
Trains smollm2-135m on examples/; each case takes some minutes on two cores.
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
from smallest import ROOT, build_parser, build_tiny_model

EXAMPLES = ROOT / "examples"
DEFAULT_MODEL = "smollm2-135m"
TOPICS = (
    *("rivers", "bread", "the moon", "bicycles", "gardens", "friendship", "winter", "music"),
    *("chess", "whales", "bridges", "honesty", "cities", "sleep", "trees", "painting"),
    *("trade", "the heart", "schools", "rain", "mountains", "money", "horses", "glass"),
    *("stories", "light", "soil", "laughter", "ships", "salt", "history", "birds"),
)
QUESTIONS = (
    "Write a paragraph about {}.",
    "Why do {} matter to people? Explain.",
    "What should a child know about {}?",
    "Tell a short true story about {}.",
    "How have {} changed over time?",
)


def run_cloudft(*words: str | Path) -> Any:
    """Run a command and return its JSON. Print its errors and raise CalledProcessError."""
    command = [sys.executable, "-m", "cloudft", *map(str, words), "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    return json.loads(done.stdout)


def read_records(path: Path) -> list[Any]:
    """Return the records of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_records(path: Path, records: list[Any]) -> Path:
    """Write a JSONL file and return its path."""
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def write_job(folder: Path, name: str, train: list[Any], example: str, **changes: Any) -> Path:
    """Write a job file with `train`, tested on the example's own test set; return its path."""
    test = EXAMPLES / example / "data" / "test.jsonl"
    data = {"train": str(write_records(folder / f"{name}.jsonl", train)), "test": str(test)}
    spec = {
        "name": name,
        "customization_type": "FINE_TUNING",
        "base_model": DEFAULT_MODEL,
        "data": data | changes.pop("data", {}),
        "hyperparameters": {"batchSize": 8} | changes.pop("hyperparameters", {}),
        "seed": 7,
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def train_and_evaluate(path: Path, *options: str | Path) -> Any:
    """Train a job and return its evaluation."""
    done = run_cloudft("submit", path, "--backend", "local", "--wait", "--quiet")
    return run_cloudft("evaluate", done["id"], "--quiet", *options)


def load_intents() -> list[Any]:
    """Return the first 240 intents."""
    return read_records(EXAMPLES / "intents" / "data" / "train.jsonl")[:240]


def generate_general_records(folder: Path) -> Path:
    """Write the base model's own answers to general questions: replay without a corpus."""
    questions = [form.format(topic) for topic in TOPICS for form in QUESTIONS]
    prompts = write_records(
        folder / "questions.jsonl", [{"prompt": q, "completion": "-"} for q in questions]
    )
    small = write_job(
        folder, "base-answers", load_intents()[:8], "intents", hyperparameters={"epochCount": 1}
    )
    base = run_cloudft("submit", small, "--backend", "local", "--wait", "--quiet")
    options = ("--max-new-tokens", "120", "--temperature", "0.7")
    answers = run_cloudft("generate", base["id"], "--base", "--file", prompts, *options)
    records = [
        {"messages": [_turn("user", question), _turn("assistant", answer["base"]["text"])]}
        for question, answer in zip(questions, answers, strict=True)
    ]
    return write_records(folder / "general.jsonl", records)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


HARSH = {"epochCount": 3, "learningRate": 4e-3, "learningRateWarmupSteps": 5}


def narrow(folder: Path) -> Mapping[str, Any]:
    """Train one small task at a learning rate that is far too high."""
    return train_and_evaluate(
        write_job(folder, "narrow", load_intents(), "intents", hyperparameters=HARSH)
    )


def mixed(folder: Path) -> Mapping[str, Any]:
    """Train the same with one third general records."""
    mix = {"mix": [{"path": str(generate_general_records(folder)), "share": 0.33}]}
    return train_and_evaluate(
        write_job(folder, "mixed", load_intents(), "intents", hyperparameters=HARSH, data=mix)
    )


def overtrained(folder: Path) -> Mapping[str, Any]:
    """Train eighty records for ten epochs."""
    train = read_records(EXAMPLES / "aws-cli" / "data" / "train.jsonl")
    validation = {"validation": str(write_records(folder / "validation.jsonl", train[80:120]))}
    rate = {"epochCount": 10, "learningRate": 1e-3}
    path = write_job(
        folder, "overtrained", train[:80], "aws-cli", hyperparameters=rate, data=validation
    )
    return train_and_evaluate(path, "--quick")


def shuffled(folder: Path) -> Mapping[str, Any]:
    """Train on labels assigned at random."""
    records = load_intents()
    labels = [r["messages"][-1]["content"] for r in records]
    random.Random(7).shuffle(labels)
    shuffled_records = [
        {"messages": [*r["messages"][:-1], {"role": "assistant", "content": label}]}
        for r, label in zip(records, labels, strict=True)
    ]
    rate = {"epochCount": 2, "learningRate": 5e-4}
    return train_and_evaluate(
        write_job(folder, "shuffled", shuffled_records, "intents", hyperparameters=rate), "--quick"
    )


def leaked(folder: Path) -> Mapping[str, Any]:
    """Evaluate a good job on its own training records."""
    rate = {"epochCount": 2, "learningRate": 5e-4}
    path = write_job(folder, "leaked", load_intents(), "intents", hyperparameters=rate)
    return train_and_evaluate(
        path, "--data", write_records(folder / "half.jsonl", load_intents()[:60]), "--quick"
    )


def smallest(folder: Path) -> Mapping[str, Any]:
    """Train a random model on a few records, and evaluate it on as few."""
    model = build_tiny_model(folder / "model")
    rate = {"epochCount": 1, "learningRate": 1e-3}
    train = [{"prompt": f"Where is {n}?", "completion": f"In {n}."} for n in range(16)]
    path = write_job(
        folder, "smallest", train, "intents", hyperparameters=rate, base_model=str(model)
    )
    test = write_records(folder / "test.jsonl", train[:4])
    return train_and_evaluate(path, "--data", test, "--quick")


CASES: tuple[Callable[[Path], Mapping[str, Any]], ...] = (
    narrow,
    mixed,
    overtrained,
    shuffled,
    leaked,
)


def main() -> int:
    """Run the cases and print what evaluate reports of each."""
    names = [case.__name__ for case in CASES]
    parser = build_parser(__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", choices=[*names, []])
    args = parser.parse_args()
    chosen = [case for case in CASES if case.__name__ in (args.cases or names)]
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("CLOUDFT_HOME", f"{folder}/home")
        for case in [smallest] if args.smallest else chosen:
            evaluation = case(Path(folder))
            print(f"## {case.__name__}\n{evaluation['significance']['sentence']}", flush=True)
            for name, diagnostic in evaluation["pitfalls"].items():
                print(f"{name} ({diagnostic['level']}): {diagnostic['sentence']}", flush=True)
            for warning in evaluation["warnings"]:
                print(f"{warning['code']}: {warning['message']}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
