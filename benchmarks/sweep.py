"""Measure a sweep of 12 short trials against 12 `cloudft submit --wait`, of any checkout.

`python benchmarks/sweep.py [--smallest] [--against CHECKOUT] [--model FOLDER]`

Both train the same 12 learning rates over the same data. The sweep has no pruning and no further
seeds, so that it does the same work. Each has a fresh home; the converted weights are shared.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from smallest import build_parser, build_tiny_model

HERE = Path(__file__).resolve().parents[1]
TRIALS = 12
RECORDS = 64


def write_job(folder: Path, model: str, trials: int) -> Path:
    """Write the job of a sweep over a list of learning rates; its own is the first of them."""
    folder.mkdir(parents=True)
    records = [
        {"prompt": f"Where is parcel {n}?", "completion": f"In {('Oslo', 'Lima', 'Rome')[n % 3]}."}
        for n in range(RECORDS + 8)
    ]
    for name, part in (("train", records[:RECORDS]), ("validation", records[RECORDS:])):
        lines = "".join(json.dumps(record) + "\n" for record in part)
        (folder / f"{name}.jsonl").write_text(lines)
    rates = [round(1e-4 * 1.2**n, 8) for n in range(trials)]
    spec = {
        "name": "bench",
        "base_model": model,
        "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
        "hyperparameters": {"learningRate": rates[0], "epochCount": 1, "batchSize": 8},
        "local": {"device": "cpu", "lora": {"r": 4, "alpha": 8}},
        "sweep": {
            "space": {"learningRate": rates},
            "trials": trials,
            "pruning": False,
            "seeds": 0,
        },
    }
    path = folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def run(words: Sequence[str | Path], checkout: Path, home: Path, models: Path) -> None:
    """Run `cloudft` of a checkout."""
    environ: Mapping[str, str] = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "CLOUDFT_HOME": str(home),
        "CLOUDFT_MODEL_CACHE": str(models),
    }
    subprocess.run(
        [sys.executable, "-m", "cloudft", *map(str, words)],
        cwd=checkout,
        env=environ,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def time_submits(job: Path, checkout: Path, models: Path, home: Path) -> float:
    """Return the seconds of one `submit --wait` for each learning rate of the space."""
    spec = yaml.safe_load(job.read_text())
    rates = spec.pop("sweep")["space"]["learningRate"]
    plain = job.with_name("plain.yaml")
    plain.write_text(yaml.safe_dump(spec))
    started = time.perf_counter()
    for rate in rates:
        words = ("submit", plain, "--wait", "-q", "--set", f"hyperparameters.learningRate={rate}")
        run(words, checkout, home, models)
    return time.perf_counter() - started


def time_sweep(job: Path, models: Path, home: Path) -> float:
    """Return the seconds of the sweep."""
    started = time.perf_counter()
    run(("sweep", job, "-q"), HERE, home, models)
    seconds = time.perf_counter() - started
    [result] = home.glob("sweeps/*/result.json")
    trials = json.loads(result.read_text())["trials"]
    scored = {one["values"]["learningRate"] for one in trials if one["outcome"] == "complete"}
    rates = yaml.safe_load(job.read_text())["sweep"]["space"]["learningRate"]
    assert scored == set(rates), "the sweep has not trained each of them"
    return seconds


def main() -> None:
    """Measure both, interleaved, and print the medians and their ratio."""
    parser = build_parser(__doc__)
    parser.add_argument("--against", type=Path, default=HERE, help="checkout of the submits")
    parser.add_argument("--model", default="smollm2-135m", help="alias or folder")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    trials, rounds = (2, 1) if args.smallest else (TRIALS, args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = str(build_tiny_model(root / "tiny")) if args.smallest else args.model
        job = write_job(root / "job", model, trials)
        models = root / "models"
        run(("submit", job, "--wait", "-q", "--seed", "99"), HERE, root / "warm", models)
        pairs = []
        for number in range(rounds):
            homes = [root / f"{kind}-{number}" for kind in ("submits", "sweep")]
            submits = time_submits(job, args.against.resolve(), models, homes[0])
            sweep = time_sweep(job, models, homes[1])
            pairs.append((submits, sweep))
            print(f"round {number + 1}: {trials} submits {submits:.1f} s, sweep {sweep:.1f} s")
            for home in homes:
                shutil.rmtree(home)
    submits, sweep = (sorted(values)[len(pairs) // 2] for values in zip(*pairs, strict=True))
    print(f"median: {trials} submits {submits:.1f} s, sweep {sweep:.1f} s, {sweep / submits:.2f}")


if __name__ == "__main__":
    main()
