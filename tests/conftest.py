"""What the tests share: a home of their own, a tiny model, job files for it, the command line."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Before torch is loaded, here or in a process started from here: tiny models need no more threads.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
# Before moto is loaded: the account is the endpoint's, whichever test of a worker comes first.
os.environ["MOTO_ACCOUNT_ID"] = "000000000000"

import forked_cli
import hypothesis
import preloaded
import tiny
from endpoint import Endpoint
from job_files import write_job_file
from processes import Cli, JobFile

# They run by `make test-clients`, `test-gpu`, `test-runtimes` and `test-trackers`, each in its own
# environment.
collect_ignore = ["clients", "gpu", "runtimes", "trackers"]

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("cloudft", deadline=None)
hypothesis.settings.load_profile("cloudft")


@pytest.fixture(scope="session", autouse=True)
def preloaded_starts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests start need not load torch; see preloaded.py."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    python = preloaded.install_interpreter(root)
    with pytest.MonkeyPatch.context() as patch:
        if python:
            patch.setenv(preloaded.PYTHON, str(python))
        yield


@pytest.fixture
def preloaded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is for what this process itself starts."""
    monkeypatch.setattr(sys, "executable", preloaded.interpreter_path())


@pytest.fixture
def plain_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers are started as they are elsewhere."""
    monkeypatch.delenv(preloaded.PYTHON, raising=False)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CLOUDFT_HOME for each test; no CLOUDFT_ or AWS_ variable of the caller is set."""
    for name in list(os.environ):
        if name.startswith(("CLOUDFT_", "_CLOUDFT", "AWS_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    monkeypatch.setenv("CLOUDFT_HOME", str(folder))
    monkeypatch.setenv("CLOUDFT_MODEL_CACHE", str(tmp_path / "models"))
    return folder


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model, `chat` or `plain` (no template): made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    templates = {"chat": tiny.CHATML, "plain": None}
    pytest.importorskip("torch", reason="the base install trains nothing")

    def model(kind: str) -> Path:
        final = root / f"tiny-{kind}"
        with (root / "tiny.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not final.exists():
                tiny.build_model(root / f"making-{kind}", chat_template=templates[kind]).rename(
                    final
                )
        return final

    return model


@pytest.fixture
def real_weights(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pretrained model, converted once for all tests that load it."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    monkeypatch.setenv("CLOUDFT_MODEL_CACHE", str(root / "real-models"))


@pytest.fixture
def real_model(real_weights: None, plain_starts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, to be trained with all cores."""
    monkeypatch.delenv("OMP_NUM_THREADS")


@pytest.fixture(scope="session")
def tiny_model(make_model: Callable[[str], Path]) -> Path:
    """A random Llama with a chat template."""
    return make_model("chat")


@pytest.fixture(scope="session")
def plain_model(make_model: Callable[[str], Path]) -> Path:
    """The same without a chat template, as base models come."""
    return make_model("plain")


@pytest.fixture(scope="session")
def fast_account() -> Iterator[Endpoint]:
    """An endpoint that runs state machines; its jobs end at once."""
    from jobs_stack import run_endpoint

    with run_endpoint("--seconds", "0", "--jobs", "100") as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def slow_account() -> Iterator[Endpoint]:
    """The same, with one job at a time, that ends when it is stopped. Stop those that you make."""
    from jobs_stack import run_endpoint

    with run_endpoint("--seconds", "600", "--jobs", "1") as endpoint:
        yield endpoint


@pytest.fixture
def aws(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """Let the command line reach the endpoint of the test's module, and return that."""
    for name, value in endpoint.environ.items():
        monkeypatch.setenv(name, value)
    return endpoint


@pytest.fixture
def job_file(tmp_path: Path, tiny_model: Path) -> JobFile:
    """A function that writes a job file for the tiny model; see write_job_file."""

    def write(folder: str = "job", **options: Any) -> Path:
        return write_job_file(tmp_path / folder, tiny_model, **options)

    return write


@pytest.fixture
def cli(tmp_path: Path, home: Path) -> Cli:
    """Run `cloudft ...` in a process of its own, in an empty folder; see forked.py."""

    def run(*args: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        return forked_cli.run_cli(args, **{"cwd": tmp_path, "timeout": 60} | options)

    return run


@pytest.fixture
def fresh_cli(tmp_path: Path, home: Path) -> Cli:
    """The same by an interpreter of its own; takes what subprocess.run takes."""

    def run(*args: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"cwd": tmp_path, "timeout": 60} | options
        return subprocess.run(
            [sys.executable, "-m", "cloudft", *map(str, args)],
            capture_output=True,
            text=True,
            check=False,
            **options,
        )

    return run
