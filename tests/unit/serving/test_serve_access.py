"""Who may use the server: programs on this machine, or those that have the key; no web page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scripted_engine import ScriptedEngine, serving

pytest.importorskip("prometheus_client")

from cloudft.serving.http.access import AccessRules

BROWSER = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"
HERE = "127.0.0.1:8000"
CHAT = ("POST", "/v1/chat/completions")


@pytest.mark.parametrize(
    "headers",
    [
        {"host": HERE, "origin": "https://evil.example"},
        {"host": HERE, "origin": "null"},
        {"host": HERE, "sec-fetch-site": "cross-site", "user-agent": BROWSER},
        {"host": HERE, "sec-fetch-site": "same-site", "user-agent": BROWSER},
        {"host": HERE, "user-agent": BROWSER},
        {"host": "evil.example:8000", "user-agent": "curl/8"},
    ],
    ids=str,
)
@pytest.mark.parametrize("target", [CHAT, ("GET", "/metrics"), ("GET", "/health")], ids=str)
def test_a_foreign_page_is_refused(target: tuple[str, str], headers: dict[str, str]) -> None:
    refused = AccessRules().refusal(*target, headers)
    assert refused is not None and refused.status == 403
    assert refused.body()["error"]["code"] == "foreign_origin"  # type: ignore[index]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": HERE, "user-agent": "OpenAI/Python 3.57.0"},
        {"host": "localhost:8000", "user-agent": "OpenAI/JS 6.49.0"},
        {"host": HERE, "user-agent": "node", "sec-fetch-mode": "cors"},  # fetch of Node.js
        {"host": "[::1]:8000", "user-agent": "curl/8"},
    ],
    ids=str,
)
def test_programs_pass(headers: dict[str, str]) -> None:
    assert AccessRules().refusal(*CHAT, headers) is None


def test_with_a_key_only_those_who_have_it_pass_by_any_name() -> None:
    rules = AccessRules("s3cret")
    elsewhere = {"host": "gpu-box.example:8000"}

    def status(path: str, authorization: str | None, **more: str) -> int | None:
        sent = {} if authorization is None else {"authorization": authorization}
        refused = rules.refusal("GET", path, {**elsewhere, **sent, **more})
        return refused.status if refused else None

    assert status("/v1/models", "Bearer s3cret") is None
    assert status("/v1/models", "bearer s3cret") is None
    assert status("/metrics", "Bearer s3cret") is None
    for wrong in ("Bearer s3cre", "Bearer ", "Basic s3cret", "Bearer s3cr\u00e9t"):
        assert (
            rules.refusal("GET", "/v1/models", {"host": HERE, "authorization": wrong}).status == 401
        )  # type: ignore[union-attr]
    assert rules.refusal("GET", "/metrics", {"host": HERE}).status == 401  # type: ignore[union-attr]
    assert rules.refusal("GET", "/health", {"host": HERE}) is None
    assert status("/v1/models", None) == 403, "a name that may be a page's"
    assert status("/v1/models", "Bearer s3cret", origin="https://evil.example") == 403
    assert "s3cret" not in repr(rules)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(ScriptedEngine(), api_key="s3cret") as found:
        yield found


def test_openai_s_client_sends_the_key(url: str) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{url}/v1", api_key="s3cret", max_retries=0) as client:
        assert client.models.list().data
        with pytest.raises(openai.AuthenticationError) as caught:
            client.with_options(api_key="wrong").models.list()
    assert caught.value.code == "invalid_api_key" and caught.value.request_id
