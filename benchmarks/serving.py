"""Compare many clients at once with one after another, and with llama.cpp's server.

    python benchmarks/serving.py [--clients 16] [--requests 96] [--new-tokens 48] [--rounds 3]
        [--dtype bfloat16] [--no-llama-cpp]

The base model of the example `intents` is served on this machine by the server of `cloudft serve`,
and by llama.cpp's (xllamacpp, `pip install 'cloudft[llama-cpp]'`) from a GGUF of the same weights
in the same format. Each client sends a chat completion as soon as its last one has ended, greedy
and streamed; every answer has the same number of tokens at most. Rounds alternate between the
servers. The bars: 16 clients get at least 4 times the tokens a second of one, p99 of the first
token is under twice that of the single client, and at least as many tokens a second as llama.cpp.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from smallest import ROOT, build_parser

from cloudft.backends.local.backend import LocalBackend
from cloudft.backends.local.environment import SHARED_MACHINE_ENVIRON
from cloudft.spec.load import load_job
from cloudft.storage.home import Home

EXAMPLE = ROOT / "examples" / "intents"
GGUF_TYPES = {"float32": "f32", "bfloat16": "bf16"}
CLOUDFT, LLAMA_CPP = "cloudft", "llama.cpp"


@dataclass
class Load:
    """What some clients have measured together."""

    seconds: float
    tokens: int
    first_tokens: list[float]

    @property
    def rate(self) -> float:
        """Return the tokens a second of all clients."""
        return self.tokens / self.seconds


def main() -> None:
    """Alternate between the servers, and print the figures."""
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
        return
    parser = build_parser(__doc__)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=sorted(GGUF_TYPES), default="bfloat16")
    parser.add_argument("--no-llama-cpp", action="store_true")
    args = parser.parse_args()
    if args.smallest:
        args.clients, args.requests, args.new_tokens, args.rounds = 2, 4, 4, 1
    lines = (EXAMPLE / "data" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    chats = [json.loads(line)["messages"][:-1] for line in lines]
    chats = list(itertools.islice(itertools.cycle(chats), args.requests))
    alone = chats[: max(2, args.requests // 8)]
    names = [CLOUDFT] + ([] if args.no_llama_cpp or not has_llama_cpp() else [LLAMA_CPP])
    print(
        f"{args.clients} clients, {args.requests} requests, {args.new_tokens} tokens, {args.dtype}"
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        urls = {
            name: stack.enter_context(run_server(name, args.dtype, args.clients, Path(folder)))
            for name in names
        }
        measured: dict[str, list[tuple[Load, Load]]] = {name: [] for name in names}
        for url in urls.values():
            run_clients(url, 1, chats[-1:], args.new_tokens)
        for _ in range(args.rounds):
            for name, url in urls.items():
                single = run_clients(url, 1, alone, args.new_tokens)
                many = run_clients(url, args.clients, chats, args.new_tokens)
                measured[name].append((single, many))
    report(measured)


def report(measured: dict[str, list[tuple[Load, Load]]]) -> None:
    """Print medians over the rounds."""
    for name, rounds in measured.items():
        single = statistics.median(one.rate for one, _ in rounds)
        many = statistics.median(several.rate for _, several in rounds)
        ratio = statistics.median(several.rate / one.rate for one, several in rounds)
        firsts = [
            statistics.median(percentile(load.first_tokens, 0.99) for load in loads)
            for loads in zip(*rounds, strict=True)
        ]
        middles = [
            statistics.median(statistics.median(load.first_tokens) for load in loads)
            for loads in zip(*rounds, strict=True)
        ]
        print(
            f"{name:<10} one client {single:7.1f} tokens/s, all {many:7.1f} ({ratio:.2f}x);"
            f" first token p99 {firsts[0]:.3f} and {firsts[1]:.3f} s"
            f" ({firsts[1] / firsts[0]:.2f}x), median {middles[0]:.3f} and {middles[1]:.3f} s"
        )
    if LLAMA_CPP in measured:
        ours, theirs = (measured[name] for name in (CLOUDFT, LLAMA_CPP))
        ratios = [a[1].rate / b[1].rate for a, b in zip(ours, theirs, strict=True)]
        print(
            f"to {LLAMA_CPP}: {statistics.median(ratios):.2f}x"
            f" ({min(ratios):.2f}-{max(ratios):.2f})"
        )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that this share of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def run_clients(url: str, clients: int, chats: Sequence[Any], new_tokens: int) -> Load:
    """Send every chat, each client one at a time."""
    waiting, lock = list(reversed(chats)), threading.Lock()
    tokens: list[int] = []
    first_tokens: list[float] = []

    def client() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                chat = waiting.pop()
            count, first = send_chat(url, chat, new_tokens)
            with lock:
                tokens.append(count)
                first_tokens.append(first)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    assert len(tokens) == len(chats), "a request has failed"
    return Load(seconds, sum(tokens), first_tokens)


def send_chat(url: str, chat: Any, new_tokens: int) -> tuple[int, float]:
    """Return the tokens of a streamed answer, and the seconds to its first part."""
    body = {
        "model": "base",
        "messages": chat,
        "max_tokens": new_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)
    started = time.perf_counter()
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
    )
    response = connection.getresponse()
    assert response.status == 200, response.read()
    first, count = 0.0, 0
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line.removeprefix(b"data: "))
        delta = event["choices"][0]["delta"] if event.get("choices") else {}
        if not first and delta.get("content"):
            first = time.perf_counter() - started
        if event.get("usage"):
            count = event["usage"]["completion_tokens"]
    connection.close()
    return count, first or time.perf_counter() - started


def has_llama_cpp() -> bool:
    """Return whether llama.cpp's server is installed; say so if it is not."""
    try:
        importlib.import_module("xllamacpp")
    except ImportError:
        print("xllamacpp is not installed: cloudft alone")
        return False
    return True


@contextlib.contextmanager
def run_server(name: str, dtype: str, rows: int, folder: Path) -> Iterator[str]:
    """Yield the address of a server in a process of its own."""
    log = (folder / f"{name}.log").open("w+")
    command = [sys.executable, __file__, "--serve", name, dtype, str(rows), str(folder)]
    with (
        log,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=SHARED_MACHINE_ENVIRON | os.environ,
        ) as process,
    ):
        assert process.stdout is not None
        url = next((line.split()[1] for line in process.stdout if line.startswith("URL ")), None)
        if url is None:
            log.seek(0)
            raise SystemExit(log.read()[-3000:])
        threading.Thread(target=process.stdout.read, daemon=True).start()
        try:
            yield url
        finally:
            process.kill()


def serve(name: str, dtype: str, rows: str, folder: str) -> None:
    """Serve the example's base model until the process is killed."""
    # Only the job's folder is temporary: converted weights stay in the model cache.
    home = str(Path(folder) / f"home-{name}")
    backend = LocalBackend(Home.from_environ(os.environ | {"CLOUDFT_HOME": home}))
    job = backend.base_model_folder(load_job(EXAMPLE / "cloudft.yaml"))
    if name == CLOUDFT:
        _serve_cloudft(backend, job, dtype, int(rows))
    else:
        _serve_llama_cpp(job, dtype, int(rows), Path(folder))


def _serve_cloudft(backend: LocalBackend, job: Path, dtype: str, rows: int) -> None:
    from cloudft.serving.engine_process import describe_base_model, open_engine
    from cloudft.serving.http.access import AccessRules
    from cloudft.serving.http.server import serve_engine
    from cloudft.web.listening_socket import bind_socket

    served = describe_base_model(job, name="base")
    with bind_socket("127.0.0.1", 0, "the models") as bound:
        environment = backend.program_environment(job)
        engine = open_engine([served], environment, dtype=dtype, rows=rows)
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        try:
            serve_engine(
                engine,
                AccessRules(None),
                bound,
                on_ready=lambda: print("URL", url, flush=True),
                on_end=lambda: None,
            )
        finally:
            engine.close()


def _serve_llama_cpp(job: Path, dtype: str, rows: int, folder: Path) -> None:
    from local_backend.export.gguf import write_gguf
    from local_backend.job_dir import JobDir
    from local_backend.models.weights import locate_weights
    from local_backend.settings import read_settings

    settings = read_settings(JobDir(job))
    path = folder / "model.gguf"
    weights = Path(locate_weights(settings.model_name, settings.weights))
    write_gguf(weights, path, GGUF_TYPES[dtype])
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel, params.n_ctx = rows, 512 * rows
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = os.cpu_count() or 1
    params.port = 0
    server = xllamacpp.Server(params)
    print("URL", server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
