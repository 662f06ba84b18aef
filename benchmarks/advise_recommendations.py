"""Run `cloudft advise` on four cases whose correct recommendation is known.

    python benchmarks/advise_recommendations.py [CASE...]

prompt: product codes that the nearest examples contain. retrieve: prices that changed after the
training data was written, with the new ones in a document. fine-tune: notes in a house style, 500
examples. corpus: documentation of AWS APIs (examples/aws-api-docs). Trains smollm2-135m; each case
takes minutes.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from smallest import ROOT, build_parser, build_tiny_model

EXAMPLES = ROOT / "examples"
PRODUCTS = (
    "lamp",
    "kettle",
    "ladder",
    "mirror",
    "carpet",
    "drawer",
    "basket",
    "pillow",
    "bucket",
    "hammer",
    "saddle",
    "candle",
    "bottle",
    "blanket",
    "curtain",
    "toaster",
    "whistle",
    "compass",
    "thermos",
    "hammock",
)
COLORS = ("red", "blue", "green", "black", "white", "yellow")
QUESTIONS = (
    "What is the code of the {}?",
    "Which code does the {} have?",
    "Tell me the code for the {}.",
    "I need the product code: {}.",
    "Code of {}, please.",
    "Under which code do we sell the {}?",
)


def prompt_case(draw: random.Random) -> Mapping[str, Any]:
    """Return arbitrary codes of named products: easy to find in the examples, hard to learn."""
    parts = ("zar", "vox", "mel", "tin", "gor", "pli", "nax", "dru", "fen", "hob", "kri", "lum")
    names = sorted({"".join(draw.sample(parts, 3)) for _ in range(60)})
    codes = {name: f"{draw.choice('ABCDEFGH')}{draw.randint(100, 999)}" for name in names}
    rows = [
        (form.format(f"{n} {PRODUCTS[i % 20]}"), codes[n])
        for i, n in enumerate(names)
        for form in QUESTIONS
    ]
    draw.shuffle(rows)
    return {"train": rows[:-60], "test": rows[-60:]}


def retrieve_case(draw: random.Random) -> Mapping[str, Any]:
    """Return prices that have all changed, and a document with the new ones."""
    products = [f"{c} {t}" for c in COLORS for t in PRODUCTS][::2]
    prices = [f"{n} dollars" for n in (11, 14, 17, 23, 29, 34, 41, 47, 53, 62)]
    old = {p: draw.choice(prices) for p in products}
    new = {p: draw.choice([x for x in prices if x != old[p]]) for p in products}
    question = "What does the {} cost today?"
    document = "\n\n".join(f"The {p} costs {new[p]} today." for p in products)
    return {
        "train": [(question.format(p), old[p]) for p in products],
        "test": [(question.format(p), new[p]) for p in products],
        "documents": document,
        "evaluate": {"labels": prices},
    }


def style_case(draw: random.Random) -> Mapping[str, Any]:
    """Return free sentences and the same as notes in a private format."""
    names = ("Anna", "Omar", "Lucia", "Henrik", "Mei", "Tomas", "Ruth", "Kofi", "Irene", "Paulo")
    locations = ("the north gate", "the old depot", "the third floor", "the harbor office")
    forms = (
        "{n} asked for {k} pieces of the {c} {t} at {p}.",
        "At {p}, {n} wants {k} of our {c} {t}s.",
        "Please send {k} {c} {t}s to {p}; the order is from {n}.",
        "{k} times the {c} {t}, said {n}, and bring them to {p}.",
    )
    rows = []
    for _ in range(560):
        v = {"n": draw.choice(names), "k": draw.randint(2, 19), "c": draw.choice(COLORS)}
        v |= {"t": draw.choice(PRODUCTS), "p": draw.choice(locations)}
        note = "{t}/{c} x{k} @ {p} ~{n}~ [ok]".format(**v | {"t": str(v["t"]).upper()})
        rows.append((draw.choice(forms).format(**v), note))
    return {"train": rows[:500], "test": rows[500:]}


CASES: Mapping[str, tuple[str, Callable[[random.Random], Mapping[str, Any]] | None]] = {
    "prompt": ("prompt", prompt_case),
    "retrieve": ("retrieve", retrieve_case),
    "fine-tune": ("fine-tune", style_case),
    "corpus": ("continue pre-training", None),
}


def write_case(folder: Path, name: str, case: Mapping[str, Any], model: str) -> Path:
    """Write the case's data and its job file; return the job file."""
    for role in ("train", "test"):
        lines = [json.dumps({"prompt": p, "completion": c}) for p, c in case[role]]
        (folder / f"{role}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    evaluate = dict(case.get("evaluate", {}))
    if "documents" in case:
        (folder / "documents.md").write_text(case["documents"], encoding="utf-8")
        evaluate["documents"] = "documents.md"
    parameters = {"epochCount": 1, "batchSize": 8, "learningRate": 5e-4}
    spec = {
        "name": f"advise-{name}",
        "base_model": model,
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
        "hyperparameters": parameters | {"learningRateWarmupSteps": 5},
        "evaluate": evaluate,
    }
    path = folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def smallest_case(draw: random.Random) -> Mapping[str, Any]:
    """Return the style case with a few records."""
    case = style_case(draw)
    return {"train": case["train"][:16], "test": case["test"][:4]}


def run_case(name: str, home: Path) -> bool:
    """Run one case and print a row. Return whether the recommendation is correct."""
    expected, build = CASES[name]
    if build is None:
        path = EXAMPLES / "aws-api-docs" / "cloudft.yaml"
        return run_advise(name, expected, path, home, "--set", "hyperparameters.epochCount=1")
    with tempfile.TemporaryDirectory() as folder:
        path = write_case(Path(folder), name, build(random.Random(3)), "smollm2-135m")
        return run_advise(name, expected, path, home)


def run_smallest(home: Path) -> bool:
    """Run the style case with a few records and a random model. Return whether it ran."""
    with tempfile.TemporaryDirectory() as folder:
        model = build_tiny_model(Path(folder, "model"))
        path = write_case(Path(folder), "smallest", smallest_case(random.Random(3)), str(model))
        run_advise("smallest", "", path, home)
    return True


def run_advise(name: str, expected: str, path: Path, home: Path, *options: str) -> bool:
    """Run `cloudft advise` on a job file, print a row, and return whether it is correct."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "cloudft", "advise", path, "-o", "json", "--limit", "60", *options],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"CLOUDFT_HOME": str(home)},
    )
    report = json.loads(done.stdout)
    verdict = "right" if report["advice"] == expected else "WRONG"
    seconds = time.monotonic() - started
    print(
        f"| {name} | {format_scores(report)} | {report['advice']} | {verdict} | {seconds:.0f} s |"
    )
    for reason in report["reasons"]:
        print(f"  {reason}", file=sys.stderr)
    return verdict == "right"


def format_scores(report: Mapping[str, Any]) -> str:
    """Return the scores of a case for a table cell."""
    if report.get("methods"):
        return ", ".join(f"{name} {m['score']:.2f}" for name, m in report["methods"].items())
    corpus = report["corpus"]
    return ", ".join(f"{n} {corpus[n]['bitsPerByte']:.3f} bits per byte" for n in ("base", "tuned"))


def main() -> int:
    """Run all cases, or those that are named; return 1 when a recommendation is wrong."""
    parser = build_parser(__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", choices=[*CASES, []])
    args = parser.parse_args()
    print(
        "| case | measured | advice | verdict | time |\n| --- | --- | --- | --- | --- |", flush=True
    )
    with tempfile.TemporaryDirectory() as home:
        if args.smallest:
            return 0 if run_smallest(Path(home)) else 1
        correct = [run_case(name, Path(home)) for name in args.cases or CASES]
    return 0 if all(correct) else 1


if __name__ == "__main__":
    sys.exit(main())
