"""Evaluations whose tuned model another runtime answers for: llama.cpp, and a server by its URL."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import evaluated_job
import pytest
import tiny
from openai_stand_in import OpenAIStandIn, Reply, completion, error
from processes import Cli, find_processes, wait_until
from served_jobs import running_server

from cloudft.runtimes.launch import started_server
from local_backend.export.gguf import write_gguf


@pytest.fixture(scope="module")
def evaluated_home(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    root = evaluated_job.shared_root(tmp_path_factory.getbasetemp())
    return evaluated_job.make_evaluated_home(root, tiny_model)


@pytest.fixture
def job_home(evaluated_home: Path, home: Path) -> Path:
    shutil.copytree(evaluated_home, home)
    return home


@pytest.fixture
def gguf(cli: Cli, job_home: Path, tmp_path: Path) -> Path:
    """Return a GGUF file of the tuned model."""
    done = cli("export", "-", tmp_path / "exported")
    assert done.returncode == 0, done.stderr
    file = tmp_path / "tuned.gguf"
    write_gguf(tmp_path / "exported", file, "f32")
    return file


def answer_with_city(body: dict[str, Any], key: str) -> Reply:
    """Answer with the last word of the question."""
    question = body["messages"][-1]["content"]
    return completion(question.rstrip("?").split()[-1])


@pytest.fixture
def server() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn(answer_with_city, ["tuned", "base"]).serving() as stand_in:
        yield stand_in


def test_llama_cpp_is_started_judged_by_the_same_scorer_and_stopped(
    cli: Cli, job_home: Path, gguf: Path
) -> None:
    done = cli("evaluate", "-", "--engine", "llama.cpp", "--engine-dir", gguf, "--output", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["engine"]["name"] == "llama.cpp"
    assert found["engine"]["version"].startswith("xllamacpp ")
    assert found["tuned"]["accuracy"] == 1.0
    assert found["asked"] == {"base": 0, "tuned": len(evaluated_job.HELD_OUT)}
    reasons = {one["metric"]: one["reason"] for one in found["omitted"]}
    assert "no log-probabilities" in reasons["referenceLoss"]
    assert str(gguf.parent) not in json.dumps(found["engine"])
    # What the job's own backend answered stays beside it.
    assert [one["engine"] for one in found["earlier"]] == [None]
    assert find_processes(str(gguf)) == []

    again = cli("evaluate", "-", "--engine", "llama.cpp", "--engine-dir", gguf)
    assert "The tuned model was answered for by llama.cpp (xllamacpp" in again.stdout
    compared = cli("compare", "base", "-")
    assert "by llama.cpp (xllamacpp" in compared.stdout
    report = cli("report", "-", "--out", "page.html")
    assert report.returncode == 0
    page = (job_home.parent / "page.html").read_text()
    assert "answered for by llama.cpp" in page


def test_llama_cpp_is_started_on_an_export_of_the_job_which_is_removed(
    cli: Cli, job_home: Path
) -> None:
    done = cli("evaluate", "-", "--engine", "llama.cpp", "--quick", "--output", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["engine"]["model"].endswith(".gguf")
    assert found["tuned"]["accuracy"] == 1.0
    assert list(job_home.glob(".engine-*")) == []


def test_cloudft_serve_answers_as_the_jobs_own_backend(
    cli: Cli, evaluated_home: Path, job_home: Path
) -> None:
    own = json.loads(cli("evaluate", "-", "--quick", "--output", "json").stdout)
    with running_server(evaluated_home, "-", "--dtype", "float32") as server:
        done = cli("evaluate", "-", "--quick", "--engine", f"openai:{server.url}/v1")
        assert done.returncode == 0, done.stderr
        assert f"answered for by {evaluated_job.NAME} at {server.url}" in done.stdout
    [newest] = sorted(job_home.glob("jobs/*/evaluations/*.json"))[-1:]
    found = json.loads(newest.read_text())
    [oldest, *_] = sorted(job_home.glob("jobs/*/evaluations/*.json"))
    before = json.loads(oldest.read_text())
    texts = [[one["tuned"]["text"] for one in each["records"]] for each in (before, found)]
    assert texts[0] == texts[1]
    assert found["tuned"]["accuracy"] == own["tuned"]["accuracy"]


def test_a_runtime_ends_with_an_evaluation_that_is_killed(job_home: Path, gguf: Path) -> None:
    words = ("evaluate", "-", "--engine", "llama.cpp", "--engine-dir", str(gguf))
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudft", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: find_processes(f"llama_cpp_program {gguf}"), "llama.cpp runs")
    process.kill()
    process.wait()
    wait_until(lambda: not find_processes(str(gguf)), "llama.cpp has ended")


def test_a_running_llama_cpp_server_answers_and_a_wrong_name_is_refused(
    cli: Cli, job_home: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started_server("llama.cpp", gguf) as (started, _):
        key = started._headers["Authorization"].removeprefix("Bearer ")
        engine = f"openai:{started.url}/v1"
        done = cli("evaluate", "-", "--engine", engine)
        assert done.returncode == 4
        assert "CLOUDFT_ENGINE_API_KEY" in done.stderr
        monkeypatch.setenv("CLOUDFT_ENGINE_API_KEY", key)
        wrong = cli("evaluate", "-", "--engine", engine, "--engine-model", "nonsense")
        assert wrong.returncode == 2
        assert "it lists tuned" in wrong.stderr
        done = cli("evaluate", "-", "--engine", engine, "--engine-model", "tuned", "--quick")
        assert done.returncode == 0, done.stderr
        assert f"answered for by tuned at {started.url}" in done.stdout
        assert key not in done.stdout + done.stderr
    assert find_processes(str(gguf)) == []


def test_answers_of_a_server_are_cached_until_it_has_another_model(
    cli: Cli, job_home: Path, server: OpenAIStandIn
) -> None:
    words = ("evaluate", "-", "--quick", "--engine-model", "tuned", "--output", "json")
    first = cli(*words, "--engine", f"openai:{server.url}")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["tuned"]["accuracy"] == 1.0
    second = json.loads(cli(*words, "--engine", f"openai:{server.url}/v1").stdout)
    assert second["asked"]["tuned"] == 0

    server.answer = lambda body, key: completion("Lima")
    third = json.loads(cli(*words, "--engine", f"openai:{server.url}").stdout)
    assert third["asked"]["tuned"] == len(evaluated_job.HELD_OUT)
    assert third["tuned"]["accuracy"] == pytest.approx(1 / len(tiny.CITIES))


def test_a_server_may_answer_for_the_base_too(
    cli: Cli, job_home: Path, server: OpenAIStandIn
) -> None:
    def answer(body: dict[str, Any], key: str) -> Reply:
        return answer_with_city(body, key) if body["model"] == "tuned" else completion("Oslo")

    server.answer = answer
    engine = ("--engine", f"openai:{server.url}", "--engine-model", "tuned")
    done = cli("evaluate", "-", *engine, "--engine-base", "base", "--output", "json", "--quick")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["base"]["accuracy"] == pytest.approx(1 / len(tiny.CITIES))
    assert found["engine"]["variants"] == ["base", "tuned"]
    assert "answerTokens" in found["tuned"]
    done = cli("evaluate", "-", *engine, "--engine-base", "tuned")
    assert done.returncode == 2
    assert "as base and as tuned model" in done.stderr


def test_several_requests_are_sent_at_once(cli: Cli, job_home: Path, server: OpenAIStandIn) -> None:
    together = threading.Barrier(4)

    def answer(body: dict[str, Any], key: str) -> Reply:
        if "parcel" in body["messages"][-1]["content"]:
            together.wait(30)
        return answer_with_city(body, key)

    server.answer = answer
    engine = ("--engine", f"openai:{server.url}", "--engine-model", "tuned")
    done = cli("evaluate", "-", "--quick", *engine)
    assert done.returncode == 0, done.stderr
    assert server.most_running >= 4


def test_what_was_answered_before_a_server_failed_is_kept(
    cli: Cli, job_home: Path, server: OpenAIStandIn
) -> None:
    def answer(body: dict[str, Any], key: str) -> Reply:
        if "parcel 8 for Rome" in body["messages"][-1]["content"]:
            return error(400, "broken")
        return answer_with_city(body, key)

    server.answer = answer
    engine = ("--engine", f"openai:{server.url}", "--engine-model", "tuned")
    done = cli("evaluate", "-", "--quick", *engine)
    assert done.returncode == 4
    assert "broken" in done.stderr
    server.answer = answer_with_city
    done = cli("evaluate", "-", "--quick", *engine, "--output", "json")
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["asked"]["tuned"] < len(evaluated_job.HELD_OUT)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "tgi"], "there is no engine 'tgi'"),
        (["--engine", "openai:localhost"], "not the address of a server"),
        (["--engine", "llama.cpp", "--engine-model", "x"], "has no other name"),
        (["--engine-model", "x"], "need --engine"),
        (["--engine", "llama.cpp", "--batch"], "can't be combined"),
        (["--engine", "openai:http://127.0.0.1:9", "--engine-dir", "."], "nothing to start"),
    ],
)
def test_options_that_do_not_fit_are_named(
    cli: Cli, job_home: Path, words: list[str], message: str
) -> None:
    done = cli("evaluate", "-", *words)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_program_that_is_not_installed_is_named(
    cli: Cli, job_home: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = cli("evaluate", "-", "--engine", "vllm", "--engine-dir", gguf.parent / "exported")
    assert done.returncode == 2
    assert "vLLM is not installed here" in done.stderr


def test_a_runtime_that_does_not_start_is_named_with_its_last_words(
    cli: Cli, job_home: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    engine = ("--engine", "llama.cpp", "--engine-dir", tmp_path / "broken.gguf")
    done = cli("evaluate", "-", *engine)
    assert done.returncode == 1
    assert "before it answered" in done.stderr
    assert "Failed to init server" in done.stderr


def test_vllm_is_started_on_the_export_by_its_own_command(
    cli: Cli, job_home: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program called vllm takes its options here, and has llama.cpp answer."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$@" > {tmp_path}/arguments\n'
        f"export CLOUDFT_STARTED_SERVER_KEY=$VLLM_API_KEY\n"
        f'exec python -m cloudft.runtimes.llama_cpp_program {gguf} "$6" "$8"\n'
    )
    program.chmod(0o700)
    path = f"{program.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    done = cli("evaluate", "-", "--engine", "vllm", "--quick", "--output", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["engine"]["name"] == "vllm"
    assert found["tuned"]["accuracy"] == 1.0
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments[0] == "serve" and arguments[2:4] == ["--host", "127.0.0.1"]
    assert not Path(arguments[1]).exists(), "the export of one evaluation is removed"
    assert find_processes(str(gguf)) == []
