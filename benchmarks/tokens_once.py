"""Measure what the number of records costs a start, a resume, and the trainer's memory.

    python benchmarks/tokens_once.py
    python benchmarks/tokens_once.py --against CHECKOUT --records 400 400000
    python benchmarks/tokens_once.py --no-resume --memory 100000 1000000 10000000

Trainers of the tests' tiny model, with records of about 25 tokens. A resume is measured from the
start of the process to the first new step, after a job that was stopped; builds and sizes take
turns, and medians count. `--against` measures another checkout beside this one, by the interpreter
in its .venv. Memory is anonymous memory (RssAnon of /proc/PID/status, sampled every 20 ms): pages
of a mapped file are the system's to drop, and do not count. The peak is that of a trainer that
makes the tokens and takes 40 steps, without the processes that encode, which are listed beside it.
Jobs of more than `--made` records are given arrays: those of that many records, again and again, by
the trainer's own writer. The trainer then finds them kept.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from smallest import ROOT, TESTS, build_parser, build_tiny_model

sys.path[:0] = [str(TESTS), str(ROOT)]

STEPS = 40
POLL_S = 0.02
TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Build:
    """A checkout, and the interpreter that runs its trainer."""

    name: str
    root: Path
    python: str


@dataclass
class Measured:
    """Wall and CPU seconds up to a step, and the greatest anonymous memory in MB."""

    seconds: float = 0.0
    cpu: float = 0.0
    peak: float = 0.0
    encoders: dict[int, float] = field(default_factory=dict)


def write_job(folder: Path, model: Path, count: int) -> Path:
    """Write a job with that many records, one at a time, and return its folder."""
    import tiny

    tiny.write_job_dir(folder, model, {"train": []}, batchSize=8, epochCount=1000)
    path, digest = folder / "data" / "train.jsonl", hashlib.sha256()
    with path.open("wb") as file:
        for number in range(count):
            city = tiny.CITIES[number % len(tiny.CITIES)]
            line = json.dumps(tiny.pair(f"Parcel {number}?", city)).encode() + b"\n"
            digest.update(line)
            file.write(line)
    job = json.loads((folder / "job.json").read_text())
    job["data"]["train"] |= {"sha256": digest.hexdigest(), "records": count}
    (folder / "job.json").write_text(json.dumps(job))
    return folder


@contextlib.contextmanager
def trainer(build: Build, job: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a trainer of a build until the block ends, then kill it."""
    environment = os.environ | {"CLOUDFT_TOKEN_CACHE": str(job.parent / "tokens")}
    with (job / "trainer.log").open("ab") as log:
        process = subprocess.Popen(
            [build.python, "-m", "local_backend.train", str(job)],
            cwd=build.root,
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()


def run_until(build: Build, job: Path, steps: int) -> Measured:
    """Run a trainer until its curve has so many points more, then kill it."""
    curve, measured = job / "metrics.jsonl", Measured()
    before = count_lines(curve)
    started = time.perf_counter()
    with trainer(build, job) as process:
        while count_lines(curve) < before + steps:
            if process.poll() is not None or time.perf_counter() - started > TIMEOUT_S:
                log = (job / "trainer.log").read_text(errors="replace")
                sys.exit(f"the trainer ended early:\n{log[-2000:]}")
            sample_memory(process.pid, measured)
            time.sleep(POLL_S)
        measured.seconds = time.perf_counter() - started
        sample_memory(process.pid, measured)
        process.kill()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        measured.cpu = usage.ru_utime + usage.ru_stime
    return measured


def count_lines(path: Path) -> int:
    """Return the number of lines of a file; 0 while there is none."""
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def sample_memory(pid: int, measured: Measured) -> None:
    """Add the anonymous memory of a process and of its children, where the system shows it."""
    with contextlib.suppress(OSError):
        measured.peak = max(measured.peak, anonymous_mb(pid))
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        for child in map(int, children):
            size = max(measured.encoders.get(child, 0.0), anonymous_mb(child))
            measured.encoders[child] = size


def anonymous_mb(pid: int) -> float:
    """Return RssAnon of a process in MB. Raise OSError."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def stop_after(build: Build, job: Path, steps: int) -> float:
    """Train so many steps, stop with a checkpoint, and return the seconds up to the last step."""
    started = time.perf_counter()
    with trainer(build, job) as process:
        while count_lines(job / "metrics.jsonl") < steps and process.poll() is None:
            time.sleep(POLL_S)
        seconds = time.perf_counter() - started
        process.send_signal(signal.SIGTERM)
        process.wait()
    (job / "ended.json").unlink()
    for name in ("checkpoints", "metrics.jsonl"):
        saved = job / f"saved-{name}"
        if (job / name).is_dir():
            shutil.copytree(job / name, saved)
        else:
            shutil.copy(job / name, saved)
    return seconds


def restore(job: Path) -> None:
    """Bring a job's folder back to where it was stopped."""
    shutil.rmtree(job / "checkpoints")
    shutil.copytree(job / "saved-checkpoints", job / "checkpoints")
    shutil.copy(job / "saved-metrics.jsonl", job / "metrics.jsonl")


def compare_resumes(
    folder: Path, model: Path, builds: list[Build], sizes: list[int], rounds: int
) -> None:
    """Print a row for each build and size: first start, then the medians of the resumes."""
    jobs: dict[tuple[str, int], Path] = {}
    first: dict[tuple[str, int], float] = {}
    for build in builds:
        for size in sizes:
            job = write_job(folder / build.name / f"job-{size}", model, size)
            jobs[build.name, size] = job
            first[build.name, size] = stop_after(build, job, 3)
    seen: dict[tuple[str, int], list[Measured]] = {key: [] for key in jobs}
    for _ in range(rounds):
        for build in builds:
            for size in sizes:
                restore(jobs[build.name, size])
                seen[build.name, size].append(run_until(build, jobs[build.name, size], 1))
    print("| build | records | first start | resume: first step | CPU | to the fewest records |")
    print("| --- | --- | --- | --- | --- | --- |")
    for build in builds:
        walls = {s: statistics.median(m.seconds for m in seen[build.name, s]) for s in sizes}
        for size in sizes:
            cpu = statistics.median(m.cpu for m in seen[build.name, size])
            print(
                f"| {build.name} | {size:,} | {first[build.name, size]:.2f} s |"
                f" {walls[size]:.2f} s | {cpu:.2f} s | {walls[size] / walls[sizes[0]]:.2f} |",
                flush=True,
            )


def give_tokens(job: Path, model: Path, made: int) -> None:
    """Write a job's kept tokens: those of the first `made` records, as often as it has records."""
    from local_backend.data.token_arrays import NARROW, ArrayWriter
    from local_backend.data.token_cache import CACHE_VARIABLE, token_key
    from local_backend.job_dir import JobDir
    from local_backend.settings import read_settings
    from local_backend.training.memory_estimate import encode_training_data, find_token_source

    cache = job.parent / "tokens"
    os.environ[CACHE_VARIABLE] = str(cache)
    part = write_job(job.parent / "part", model, made)
    data = encode_training_data(read_settings(JobDir(part)))[1]
    settings = read_settings(JobDir(job))
    file = settings.data["train"]
    kept = cache / token_key(find_token_source(settings)[1], file)
    kept.mkdir()
    writer = ArrayWriter(kept, NARROW)
    for _ in range(file.records // made):
        writer.append(data)
    writer.close()


def measure_memory(
    folder: Path, model: Path, builds: list[Build], sizes: list[int], made: int
) -> None:
    """Print a row for each build and size: memory, time to step STEPS, and the kept tokens."""
    print("| build | records | peak RssAnon | with the encoders | to the last step | on disk |")
    print("| --- | --- | --- | --- | --- | --- |")
    for build in builds:
        for size in sizes:
            job = write_job(folder / f"memory-{build.name}-{size}" / "job", model, size)
            if size > made and build.root == ROOT:
                give_tokens(job, model, made)
            measured = run_until(build, job, STEPS)
            kept = (job.parent / "tokens").rglob("*")
            disk = sum(path.stat().st_size for path in kept if path.is_file())
            whole = measured.peak + sum(measured.encoders.values())
            print(
                f"| {build.name} | {size:,} | {measured.peak:,.0f} MB | {whole:,.0f} MB |"
                f" {measured.seconds:.1f} s | {disk / 1e6:,.1f} MB |",
                flush=True,
            )
            shutil.rmtree(job.parent)


def parse_arguments() -> argparse.Namespace:
    """Return the arguments."""
    parser = build_parser(__doc__)
    parser.add_argument("--against", type=Path, help="another checkout, measured beside this one")
    parser.add_argument("--records", type=int, nargs="+", default=[400, 400_000])
    parser.add_argument("--memory", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--made", type=int, default=1_000_000, help="records that are tokenized")
    parser.add_argument("--no-resume", action="store_true", help="measure memory alone")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    """Print the tables."""
    arguments = parse_arguments()
    if arguments.smallest:
        arguments.records, arguments.memory = [16, 64], [64, 256]
        arguments.made, arguments.rounds = 64, 1
    builds = [Build("this", ROOT, sys.executable)]
    if arguments.against:
        other = arguments.against.resolve()
        builds.append(Build("other", other, str(other / ".venv" / "bin" / "python")))
    with tempfile.TemporaryDirectory(prefix="tokens-once-") as name:
        folder = Path(name)
        model = build_tiny_model(folder / "model")
        if not arguments.no_resume:
            compare_resumes(folder, model, builds, arguments.records, arguments.rounds)
        if arguments.memory:
            measure_memory(folder, model, builds, arguments.memory, arguments.made)


if __name__ == "__main__":
    main()
