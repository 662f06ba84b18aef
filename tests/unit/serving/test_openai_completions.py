"""Completions of plain text, models, paths and metrics, as OpenAI's Python client uses them."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from scripted_engine import Script, ScriptedEngine, serving

from cloudft.errors import EngineFailed

openai = pytest.importorskip("openai")
pytest.importorskip("prometheus_client")


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[ScriptedEngine, str]]:
    engine = ScriptedEngine()
    with serving(engine) as url:
        yield engine, url


@pytest.fixture
def engine(served: tuple[ScriptedEngine, str]) -> ScriptedEngine:
    served[0].__init__()  # type: ignore[misc]  # as new, behind the same server
    return served[0]


@pytest.fixture
def url(served: tuple[ScriptedEngine, str], engine: ScriptedEngine) -> str:
    return served[1]


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as made:
        yield made


def get(url: str, method: str = "GET", data: bytes | None = None, **headers: str) -> Any:
    """Return status, headers and body of a response."""
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as got:
            return got.status, got.headers, got.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def test_prompts_and_choices_are_numbered_in_order(client: Any, engine: Any) -> None:
    engine.write = lambda request: Script((f"[{request.prompt.text}]",))
    whole = client.completions.create(model="router", prompt=["a", "b"], n=2, echo=True)
    assert [(c.index, c.text) for c in whole.choices] == [
        (0, "a[a]"),
        (1, "a[a]"),
        (2, "b[b]"),
        (3, "b[b]"),
    ]
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (10, 4)
    assert {request.decoding.max_new_tokens for request in engine.requests} == {16}
    streamed = ["", "", "", ""]
    for chunk in client.completions.create(
        model="router", prompt=["a", "b"], n=2, echo=True, stream=True
    ):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == [choice.text for choice in whole.choices]


def test_without_a_seed_equal_prompts_have_answers_of_their_own(client: Any, engine: Any) -> None:
    ask = {"model": "router", "prompt": ["a", "a"], "n": 2, "temperature": 1}
    client.completions.create(**ask)
    assert len({request.decoding.seed for request in engine.requests}) == 4
    client.completions.create(**ask, seed=5)
    assert [request.decoding.seed for request in engine.requests[4:]] == [5, 6, 5, 6]


def test_prompts_may_be_tokens(client: Any, engine: Any) -> None:
    client.completions.create(model="router", prompt=[5, 6])
    client.completions.create(model="router", prompt=[[5], [6, 7]])
    assert [r.prompt.token_ids for r in engine.requests] == [[5, 6], [5], [6, 7]]
    with pytest.raises(openai.BadRequestError, match="echo"):
        client.completions.create(model="router", prompt=[5, 6], echo=True)


def test_legacy_logprobs_have_offsets_into_the_text(client: Any, engine: Any) -> None:
    whole = client.completions.create(model="router", prompt="x", logprobs=2)
    found = whole.choices[0].logprobs
    assert found.tokens == ["Hello", " there", "."] and found.text_offset == [0, 5, 11]
    assert found.token_logprobs == [-0.5] * 3
    assert found.top_logprobs == [{"t0": -1.0, "t1": -2.0}] * 3
    chunks = list(client.completions.create(model="router", prompt="x", logprobs=2, stream=True))
    offsets = [
        o for c in chunks if c.choices[0].logprobs for o in c.choices[0].logprobs.text_offset
    ]
    assert offsets == found.text_offset


def test_the_usage_of_a_stream_comes_last(client: Any, engine: Any) -> None:
    *_, last = client.completions.create(
        model="router", prompt="x", stream=True, stream_options={"include_usage": True}
    )
    assert (last.choices, last.usage.total_tokens) == ([], 8)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": ["a"] * 200}, "n"),
        ({"extra_body": {"messages": []}}, "messages"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_a_completion_can_not_do_is_refused(
    client: Any, engine: Any, changes: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{"model": "router", "prompt": "x", **changes})
    assert caught.value.param == param and not engine.requests


def test_models_are_listed_and_found(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["router", "base"]
    assert client.models.retrieve("router").root == "router-abc123"
    assert client.models.retrieve("router-abc123").id == "router", "a job's id names its model too"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/responses", b"{}", 404),
        ("GET", "/v1/chat/completions", None, 405),
        ("GET", "/", None, 404),
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"\xff\xfe", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/completions", b"[" * 100_000, 400),
        ("POST", "/v1/completions", b" " * (17 << 20), 413),
    ],
    ids=lambda value: str(value)[:30],
)
def test_every_error_is_an_object_with_a_request_id(
    url: str, method: str, path: str, body: bytes | None, status: int
) -> None:
    code, headers, text = get(url + path, method, body)
    error = json.loads(text)["error"]
    assert (
        code == status
        and error["message"]
        and error.keys()
        == {
            "message",
            "type",
            "param",
            "code",
        }
    )
    assert headers["x-request-id"].startswith("req_")


def test_a_request_id_of_the_client_is_kept_if_it_is_harmless(url: str) -> None:
    assert get(f"{url}/health", **{"X-Request-Id": "mine-1"})[1]["x-request-id"] == "mine-1"
    assert get(f"{url}/health", **{"X-Request-Id": "x y"})[1]["x-request-id"] != "x y"


def test_an_unexpected_exception_is_500_and_its_text_in_no_log(
    client: Any, engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "a {} prompt".format("secret")  # tracebacks quote their lines of code

    def fail(request: Any) -> Script:
        raise ZeroDivisionError(secret)

    engine.write = fail
    with pytest.raises(openai.InternalServerError) as caught:
        client.completions.create(model="router", prompt="x")
    assert caught.value.request_id in caplog.text and "ZeroDivisionError" in caplog.text
    assert secret not in caplog.text + str(caught.value)


def test_an_engine_that_has_ended_is_503(client: Any, url: str, engine: Any) -> None:
    engine.failure = EngineFailed("the models' process exited: killed", fix="start it again.")
    with pytest.raises(openai.InternalServerError, match="exited: killed") as caught:
        client.completions.create(model="router", prompt="x")
    assert (caught.value.status_code, caught.value.code) == (503, "engine_failed")
    assert get(f"{url}/health")[0] == get(f"{url}/metrics")[0] == 503


def test_a_client_that_goes_away_cancels_its_request(client: Any, url: str, engine: Any) -> None:
    engine.write = lambda request: Script(("x",) * 500, delay=0.02)
    stream = client.completions.create(model="router", prompt="x", stream=True)
    next(iter(stream))
    stream.close()
    with pytest.raises(openai.APITimeoutError):
        client.completions.create(model="router", prompt="x", timeout=0.3)
    deadline = time.monotonic() + 10
    while len(engine.canceled) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sorted(engine.canceled) == ["0", "1"] and engine.tokens_made < 100
    while 'status="499"} 2.0' not in get(f"{url}/metrics")[2] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert 'status="499"} 2.0' in get(f"{url}/metrics")[2]


def test_metrics_count_requests_tokens_and_times(client: Any, url: str, engine: Any) -> None:
    before = get(f"{url}/metrics")[2]
    for _ in range(2):
        client.chat.completions.create(model="router", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="secret-name", prompt="x")
    _, headers, text = get(f"{url}/metrics")
    assert headers["content-type"].startswith("text/plain; version=")
    assert "secret-name" not in text, "a client can't make new series"

    def difference(series: str) -> float:
        found = [re.findall(rf"^{re.escape(series)} (.*)$", one, re.M) for one in (text, before)]
        return float(found[0][0]) - float((found[1] or ["0"])[0])

    labels = 'gen_ai_operation_name="chat",gen_ai_request_model="router"'
    assert difference(f'cloudft_requests_total{{{labels},status="200"}}') == 2
    assert difference(f"gen_ai_server_time_to_first_token_seconds_count{{{labels}}}") == 2
    assert difference(f"gen_ai_server_time_per_output_token_seconds_count{{{labels}}}") == 2
    assert difference(f"gen_ai_server_request_duration_seconds_count{{{labels}}}") == 2
    assert "cloudft_requests_running 0.0" in text
    assert "cloudft_engine_resident_memory_bytes 1.048576e+06" in text
    assert "process_resident_memory_bytes" in text
