"""Four cases whose right answer is known, put to `cloudft advise`: does it find it by measuring?

    python benchmarks/advise_recommendations.py [CASE...]

prompt: codes of products, which the nearest examples hold. retrieve: prices that have changed since
the training data was written, in a document. fine-tune: notes in a house style, 500 examples.
corpus: documentation of AWS APIs (examples/aws-api-docs). Trains smollm2-135m; minutes a case.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

EXAMPLES = Path(__file__).parents[1] / "examples"
THINGS = (
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
COLOURS = ("red", "blue", "green", "black", "white", "yellow")
ASKED = (
    "What is the code of the {}?",
    "Which code does the {} have?",
    "Tell me the code for the {}.",
    "I need the product code: {}.",
    "Code of {}, please.",
    "Under which code do we sell the {}?",
)


def prompt_case(draw: random.Random) -> Mapping[str, Any]:
    """Arbitrary codes of things with names of their own: among the examples, hard to learn."""
    parts = ("zar", "vox", "mel", "tin", "gor", "pli", "nax", "dru", "fen", "hob", "kri", "lum")
    names = sorted({"".join(draw.sample(parts, 3)) for _ in range(60)})
    codes = {name: f"{draw.choice('ABCDEFGH')}{draw.randint(100, 999)}" for name in names}
    rows = [
        (form.format(f"{n} {THINGS[i % 20]}"), codes[n])
        for i, n in enumerate(names)
        for form in ASKED
    ]
    draw.shuffle(rows)
    return {"train": rows[:-60], "test": rows[-60:]}


def retrieve_case(draw: random.Random) -> Mapping[str, Any]:
    """Prices that have all changed; the new ones stand in a document."""
    products = [f"{c} {t}" for c in COLOURS for t in THINGS][::2]
    prices = [f"{n} dollars" for n in (11, 14, 17, 23, 29, 34, 41, 47, 53, 62)]
    old = {p: draw.choice(prices) for p in products}
    new = {p: draw.choice([x for x in prices if x != old[p]]) for p in products}
    asked = "What does the {} cost today?"
    document = "\n\n".join(f"The {p} costs {new[p]} today." for p in products)
    return {
        "train": [(asked.format(p), old[p]) for p in products],
        "test": [(asked.format(p), new[p]) for p in products],
        "documents": document,
        "evaluate": {"labels": prices},
    }


def style_case(draw: random.Random) -> Mapping[str, Any]:
    """Free sentences to notes in a form that no one else uses."""
    names = ("Anna", "Omar", "Lucia", "Henrik", "Mei", "Tomas", "Ruth", "Kofi", "Irene", "Paulo")
    places = ("the north gate", "the old depot", "the third floor", "the harbour office")
    forms = (
        "{n} asked for {k} pieces of the {c} {t} at {p}.",
        "At {p}, {n} wants {k} of our {c} {t}s.",
        "Please send {k} {c} {t}s to {p}; the order is from {n}.",
        "{k} times the {c} {t}, said {n}, and bring them to {p}.",
    )
    rows = []
    for _ in range(560):
        v = {"n": draw.choice(names), "k": draw.randint(2, 19), "c": draw.choice(COLOURS)}
        v |= {"t": draw.choice(THINGS), "p": draw.choice(places)}
        note = "{t}/{c} x{k} @ {p} ~{n}~ [ok]".format(**v | {"t": str(v["t"]).upper()})
        rows.append((draw.choice(forms).format(**v), note))
    return {"train": rows[:500], "test": rows[500:]}


CASES: Mapping[str, tuple[str, Callable[[random.Random], Mapping[str, Any]] | None]] = {
    "prompt": ("prompt", prompt_case),
    "retrieve": ("retrieve", retrieve_case),
    "fine-tune": ("fine-tune", style_case),
    "corpus": ("continue pre-training", None),
}


def write_case(folder: Path, name: str, case: Mapping[str, Any]) -> Path:
    """The case's job file, with its data beside it."""
    for role in ("train", "test"):
        lines = [json.dumps({"prompt": p, "completion": c}) for p, c in case[role]]
        (folder / f"{role}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    judging = dict(case.get("evaluate", {}))
    if "documents" in case:
        (folder / "documents.md").write_text(case["documents"], encoding="utf-8")
        judging["documents"] = "documents.md"
    parameters = {"epochCount": 1, "batchSize": 8, "learningRate": 5e-4}
    spec = {
        "name": f"advise-{name}",
        "base_model": "smollm2-135m",
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
        "hyperparameters": parameters | {"learningRateWarmupSteps": 5},
        "evaluate": judging,
    }
    path = folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def run(name: str, home: Path) -> bool:
    """Put one case to advise; prints a row. True when the word is the right one."""
    right, make = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        if make is None:
            path = EXAMPLES / "aws-api-docs" / "cloudft.yaml"
            more = ["--set", "hyperparameters.epochCount=1"]
        else:
            path, more = write_case(Path(folder), name, make(random.Random(3))), []
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "cloudft", "advise", path, "-o", "json", "--limit", "60", *more],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env=os.environ | {"CLOUDFT_HOME": str(home)},
        )
    found = json.loads(done.stdout)
    scores = measured(found)
    mark = "right" if found.get("advice") == right else "WRONG"
    print(
        f"| {name} | {scores} | {found.get('advice')} | {mark} | {time.monotonic() - began:.0f} s |"
    )
    for reason in found.get("reasons", [found.get("error")]):
        print(f"  {reason}", file=sys.stderr)
    return mark == "right"


def measured(found: Mapping[str, Any]) -> str:
    """The scores of a case in a cell."""
    if found.get("methods"):
        return ", ".join(f"{n} {m['score']:.2f}" for n, m in found["methods"].items())
    corpus = found.get("corpus") or {}
    return ", ".join(f"{n} {corpus[n]['bitsPerByte']:.3f} bits a byte" for n in ("base", "tuned"))


def main(names: Sequence[str]) -> int:
    """All cases, or those that are named."""
    print("| case | measured | advice | | took |\n| --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as home:
        right = [run(name, Path(home)) for name in names or CASES]
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
