"""`cloudft serve` as a process: two tuned jobs and their base, by OpenAI's Python client."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from processes import Cli, kill, wait_until
from served_jobs import (
    CALLER,
    CITIES,
    ROUTER,
    TOOL,
    RunningServer,
    question,
    running_server,
    train_jobs,
)

openai = pytest.importorskip("openai")
pytest.importorskip("llguidance")

CLIENTS = 16
ENDLESS = {
    "type": "json_schema",
    "json_schema": {
        "name": "x",
        "schema": {"type": "array", "items": {"type": "integer"}, "minItems": 1000},
    },
}
"""A form that no answer fills within the context: no model ends it by itself."""
FORM = {
    "type": "object",
    "properties": {"found": {"type": "boolean"}},
    "required": ["found"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def trained_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_jobs(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(trained_home: Path) -> Iterator[RunningServer]:
    # In bfloat16 the size of a batch may decide between two tokens that are about as likely.
    with running_server(trained_home, CALLER, ROUTER, "--dtype", "float32") as running:
        yield running


def connect(server: RunningServer, **options: Any) -> Any:
    """Return OpenAI's client of a server."""
    settings = {"api_key": "any", "max_retries": 0, "timeout": 120, **options}
    return openai.OpenAI(base_url=f"{server.url}/v1", **settings)


def accepts_connections(server: RunningServer) -> bool:
    parts = urlsplit(server.url)
    with socket.socket() as probe:
        return probe.connect_ex((str(parts.hostname), int(parts.port or 0))) == 0


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Any]:
    with connect(server) as made:
        yield made


def answer(client: Any, model: str, city: str = "Oslo", **options: Any) -> str:
    """Return the greedy answer of a model."""
    whole = client.chat.completions.create(
        model=model, messages=[question(city)], **{"max_tokens": 40, **options}
    )
    return str(whole.choices[0].message.content)


def test_jobs_and_their_base_are_served_from_one_process(client: Any, server: Any) -> None:
    assert server.announced["models"] == [CALLER, ROUTER, "base"]
    assert [model.id for model in client.models.list()] == [CALLER, ROUTER, "base"]
    answers = {model: answer(client, model) for model in (CALLER, ROUTER, "base")}
    assert len(set(answers.values())) == 3 and answers[ROUTER].startswith("In ")


def test_answers_are_those_of_generate(client: Any, trained_home: Path, cli: Cli) -> None:
    for city in CITIES[:2]:
        prompt = str(question(city)["content"])
        done = cli(
            *("generate", ROUTER, "--prompt", prompt, "--max-new-tokens", "40"),
            env=os.environ | {"CLOUDFT_HOME": str(trained_home)},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.rstrip("\n") == answer(client, ROUTER, city).rstrip("\n")


def test_clients_at_once_get_the_answers_of_one_by_one(client: Any) -> None:
    def ask(one: tuple[str, str]) -> Any:
        model, city = one
        options = {"tools": [TOOL], "max_tokens": 80} if model == CALLER else {"max_tokens": 40}
        whole = client.chat.completions.create(model=model, messages=[question(city)], **options)
        calls = [call.function for call in whole.choices[0].message.tool_calls or []]
        return whole.choices[0].message.content, calls, whole.usage

    request = [(model, city) for city in CITIES for model in (ROUTER, CALLER)][:CLIENTS]
    one_by_one = [ask(one) for one in request]
    with ThreadPoolExecutor(CLIENTS) as pool:
        at_once = list(pool.map(ask, request))
    assert at_once == one_by_one


def test_a_stream_comes_token_by_token(client: Any) -> None:
    whole = client.chat.completions.create(model=ROUTER, messages=[question("Rome")], max_tokens=40)
    chunks = list(
        client.chat.completions.create(
            model=ROUTER,
            messages=[question("Rome")],
            max_tokens=40,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    pieces = [
        c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content
    ]
    assert "".join(pieces) == whole.choices[0].message.content and len(pieces) > 1
    assert chunks[-1].usage == whole.usage


def test_a_tool_is_called(client: Any) -> None:
    request: dict[str, Any] = {"model": CALLER, "messages": [question("Oslo")], "max_tokens": 80}
    whole = client.chat.completions.create(**request, tools=[TOOL]).choices[0]
    assert whole.finish_reason == "tool_calls"
    [call] = whole.message.tool_calls
    assert call.function.name == "find" and json.loads(call.function.arguments).keys() == {"city"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "In Oslo."}
    conversation = [question("Oslo"), whole.message, result]
    after = client.chat.completions.create(model=CALLER, messages=conversation, max_tokens=9)
    assert after.usage.prompt_tokens > 0


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "find"}}], ids=str
)
def test_a_call_that_is_required_keeps_the_tool_s_schema(client: Any, choice: Any) -> None:
    done = client.chat.completions.create(
        model=ROUTER,
        messages=[question("Oslo")],
        tools=[TOOL],
        tool_choice=choice,
        max_tokens=200,
    ).choices[0]
    if done.finish_reason != "length":  # a random model may write blanks
        [call] = done.message.tool_calls
        assert json.loads(call.function.arguments)["city"] in CITIES


def test_an_answer_keeps_a_json_schema_and_one_that_can_not_be_kept_is_refused(
    client: Any,
) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": FORM}}
    done = client.chat.completions.create(
        model=ROUTER, messages=[question("Oslo")], response_format=form, max_tokens=200
    ).choices[0]
    if done.finish_reason != "length":
        assert isinstance(json.loads(done.message.content)["found"], bool)
    unique = {"type": "array", "uniqueItems": True, "items": {"type": "integer"}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": unique}}
    with pytest.raises(openai.BadRequestError, match="uniqueItems") as caught:
        answer(client, ROUTER, response_format=form)
    assert caught.value.param == "response_format"


def test_a_prompt_longer_than_the_context_is_refused(client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="context length is 512") as caught:
        client.completions.create(model="base", prompt="word " * 2000)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")
    with pytest.raises(openai.BadRequestError, match="prompt is empty") as caught:
        client.completions.create(model="base", prompt="")
    assert caught.value.param == "prompt"


def test_a_prompt_of_tokens_is_continued_and_one_of_another_model_refused(client: Any) -> None:
    request = {"model": "base", "max_tokens": 4}
    assert client.completions.create(**request, prompt=[5, 6, 7]).usage.prompt_tokens == 3
    for wrong in (99_999, -1):
        with pytest.raises(openai.BadRequestError, match=f"has the token {wrong}") as caught:
            client.completions.create(**request, prompt=[5, wrong])
        assert caught.value.param == "prompt"
    assert client.completions.create(**request, prompt="Where").usage.completion_tokens


def test_a_request_whose_client_is_gone_ends(client: Any, server: RunningServer) -> None:
    def read(metric: str) -> float:
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=60) as got:
            lines = got.read().decode().splitlines()
        return float(next(x for x in lines if x.startswith(f"{metric} ")).split()[1])

    before, tokens, choices = read("cloudft_generation_tokens_total"), 480, 32
    stream = client.completions.create(
        model="base",
        prompt="Where",
        max_tokens=tokens,
        n=choices,
        stream=True,
        extra_body={"response_format": ENDLESS},
    )
    next(iter(stream))
    stream.close()
    wait_until(lambda: read("cloudft_requests_running") == 0, "the answers have left the batch")
    assert read("cloudft_generation_tokens_total") - before < tokens * choices


def test_ctrl_c_lets_answers_end_and_takes_no_new_ones(trained_home: Path) -> None:
    with running_server(trained_home, ROUTER) as server, connect(server) as client:
        request = {"model": "base", "prompt": "Where", "max_tokens": 300, "temperature": 2}
        stream = iter(client.completions.create(**request, stream=True))
        first = next(stream)
        server.interrupt()
        *_, last = first, *stream
        assert last.choices[0].finish_reason in ("length", "stop")
        assert server.process.wait(30) == 0
        with pytest.raises(openai.APIConnectionError):
            client.models.list()


def test_a_second_ctrl_c_ends_answers_at_once(trained_home: Path) -> None:
    options = ("--max-batch", "1")
    with running_server(trained_home, ROUTER, *options) as server, connect(server) as client:
        request = {"model": "base", "max_tokens": 480, "extra_body": {"response_format": ENDLESS}}
        prompts = ["Where"] * 64
        stream = iter(client.completions.create(**request, prompt=prompts, stream=True))
        next(stream)
        server.interrupt()
        # Two signals that come at once are one: the second is sent when the first was taken.
        wait_until(lambda: not accepts_connections(server), "no new requests are taken")
        server.interrupt()
        assert server.process.wait(15) == 130
        with pytest.raises((openai.APIError, httpx2.HTTPError)):
            list(stream)


def test_a_full_queue_refuses(trained_home: Path) -> None:
    options = ("--max-batch", "1", "--max-waiting", "1")
    with running_server(trained_home, ROUTER, *options) as server, connect(server) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            client.completions.create(model="base", prompt=["Where"] * 64)
        assert float(caught.value.response.headers["retry-after"]) > 0
        # The answers of the refused request that were taken end with the step that is under way.
        patient = client.with_options(max_retries=5)
        assert patient.completions.create(model="base", prompt="Where").usage.completion_tokens


def test_the_server_ends_with_an_error_when_its_models_process_dies(trained_home: Path) -> None:
    with running_server(trained_home, ROUTER) as server:
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(server.process.pid)],
            capture_output=True,
            text=True,
            check=True,
        )
        [child] = map(int, children.stdout.split())
        kill(child, signal.SIGKILL)
        assert server.process.wait(30) == 1


def test_a_key_is_needed_beyond_this_machine(trained_home: Path, cli: Cli, tmp_path: Path) -> None:
    environ = os.environ | {"CLOUDFT_HOME": str(trained_home)}
    refused = cli("serve", ROUTER, "--host", "0.0.0.0", "--port", "0", env=environ)
    assert refused.returncode == 2 and "--api-key-file" in refused.stderr
    key = tmp_path / "key.txt"
    key.write_text("s3cret\n")
    arguments = (ROUTER, "--host", "0.0.0.0", "--api-key-file", str(key))
    with running_server(trained_home, *arguments) as server:
        with connect(server, api_key="s3cret") as client:
            assert answer(client, ROUTER)
        with connect(server) as client, pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_the_export_for_vllm_has_all_that_a_server_reads(
    trained_home: Path, cli: Cli, tmp_path: Path
) -> None:
    environ = os.environ | {"CLOUDFT_HOME": str(trained_home)}
    done = cli("export", ROUTER, "served", "--for", "vllm", env=environ, timeout=300)
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (tmp_path / "served").iterdir()}
    assert files >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    config = json.loads((tmp_path / "served" / "tokenizer_config.json").read_text())
    assert "chat_template.jinja" in files or config["chat_template"]


def test_several_threads_may_wait_for_one_answer_each_while_one_streams(client: Any) -> None:
    found: list[str] = []
    stream = client.chat.completions.create(
        model="base", messages=[question("Oslo")], max_tokens=200, temperature=2, stream=True
    )
    next(iter(stream))
    threads = [
        threading.Thread(target=lambda: found.append(answer(client, ROUTER))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found) == 3
    stream.close()
