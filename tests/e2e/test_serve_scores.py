"""`serve` scores given text: `echo` with `logprobs`, its tokenizer, lm-evaluation-harness."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chat_templates
import pytest
import tiny
import torch
from scripted_engine import ScriptedEngine, serving

from cloudft.backends.local.environment import trainer_environment
from cloudft.serving.engine_process import ServedJob, open_engine
from cloudft.storage.home import Home

openai = pytest.importorskip("openai")
TEXT = "Parcel 7 is in Zürich, and 8 in Lyon."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored") / "model"
    return tiny.build_model(folder, chat_template=chat_templates.QWEN25, context=256)


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    folder = tiny.write_job_dir(model.parent / "job", model, {"train": tiny.pairs(2)})
    environment = trainer_environment(Home(model.parent / "home"), hub=False)
    engine = open_engine([ServedJob(folder, "job", None, "base")], environment, dtype="float32")
    with serving(engine) as found:
        yield found


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def reference(model: Path) -> tuple[Any, Any]:
    """The tokenizer and the model as transformers has them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)


def post(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as got:
        return json.loads(got.read())


def expected_logprobs(reference: tuple[Any, Any], ids: list[int]) -> torch.Tensor:
    """Return ln p of all tokens after each of `ids` but the last."""
    with torch.inference_mode():
        return torch.as_tensor(reference[1](torch.tensor([ids])).logits[0].log_softmax(-1)[:-1])


@pytest.mark.parametrize("kind", ["text", "tokens"])
def test_an_echo_with_logprobs_scores_the_prompt(
    client: Any, reference: tuple[Any, Any], kind: str
) -> None:
    ids = reference[0](TEXT)["input_ids"]
    prompt: Any = TEXT if kind == "text" else ids
    request = {"model": "base", "prompt": prompt, "echo": True, "logprobs": 2}
    [scored] = client.completions.create(**request, max_tokens=0).choices
    assert (scored.text, scored.finish_reason) == (TEXT, "length")
    expected = expected_logprobs(reference, ids)
    own = expected.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    found = scored.logprobs
    assert found.token_logprobs[0] is found.top_logprobs[0] is None
    assert found.token_logprobs[1:] == pytest.approx(own, abs=1e-4)
    tops = [max(top.values()) for top in found.top_logprobs[1:]]
    assert tops == pytest.approx(expected.max(-1).values.tolist(), abs=1e-4)
    assert len(found.tokens) == len(found.text_offset) == len(ids)
    for offset, token in zip(found.text_offset, found.tokens, strict=True):
        assert "\ufffd" in token or TEXT.startswith(token, offset), (offset, token)

    [more] = client.completions.create(**request, max_tokens=3, stop="\0").choices
    assert more.logprobs.token_logprobs[: len(ids)] == pytest.approx([None, *own], abs=1e-4)
    assert more.text.startswith(TEXT) and len(more.logprobs.tokens) > len(ids)
    chunks = list(client.completions.create(**request, max_tokens=3, stop="\0", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == more.text
    parts = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert [t for part in parts for t in part.tokens] == more.logprobs.tokens
    assert [o for part in parts for o in part.text_offset] == more.logprobs.text_offset


def test_a_prompt_that_is_known_is_scored_whole(client: Any, reference: tuple[Any, Any]) -> None:
    long = f"{TEXT} " * 6
    ids = reference[0](long)["input_ids"]
    for _ in range(2):  # after an answer to it, and beside others of the same beginning
        choices = client.completions.create(
            model="base", prompt=[long, long], max_tokens=1, logprobs=0, echo=True
        ).choices
        assert {len(c.logprobs.tokens) for c in choices} <= {len(ids), len(ids) + 1}
        client.completions.create(model="base", prompt=long, max_tokens=1)


def test_nothing_is_generated_only_with_an_echo(client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="needs 'echo'"):
        client.completions.create(model="base", prompt="x", max_tokens=0)
    [whole] = client.completions.create(model="base", prompt="x", max_tokens=0, echo=True).choices
    assert (whole.text, whole.logprobs) == ("x", None)


def test_tokens_are_shown_and_read(url: str, reference: tuple[Any, Any]) -> None:
    ids = reference[0](TEXT)["input_ids"]
    shown = post(f"{url}/tokenize", {"model": "base", "prompt": TEXT})
    assert shown == {"count": len(ids), "max_model_len": 256, "tokens": ids}
    assert post(f"{url}/detokenize", {"tokens": ids}) == {"prompt": TEXT}
    chat = [{"role": "user", "content": TEXT}]
    rendered = reference[0].apply_chat_template(chat, add_generation_prompt=True)
    expected = rendered if isinstance(rendered, list) else rendered["input_ids"]
    assert post(f"{url}/tokenize", {"messages": chat})["tokens"] == expected
    info = post(f"{url}/tokenizer_info")
    assert info["eos_token"] == reference[0].eos_token
    assert info["chat_template"] == chat_templates.QWEN25
    assert post(f"{url}/tokenize", {"prompt": info["eos_token"]})["tokens"] == [
        reference[0].eos_token_id
    ]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/tokenize", {}, 400),
        ("/tokenize", {"prompt": "x", "messages": []}, 400),
        ("/tokenize", {"prompt": "x", "model": "other"}, 404),
        ("/detokenize", {"tokens": [10**6]}, 400),
        ("/detokenize", {"tokens": ["x"]}, 400),
    ],
)
def test_what_no_tokens_can_be_shown_of_is_refused(
    url: str, path: str, body: dict[str, Any], status: int
) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(url + path, body)
    with caught.value as refused:
        assert refused.code == status
        assert json.loads(refused.read())["error"]["message"]


def test_an_engine_without_a_tokenizer_has_no_such_route() -> None:
    with serving(ScriptedEngine()) as url, pytest.raises(urllib.error.HTTPError) as caught:
        post(f"{url}/tokenize", {"prompt": "x"})
    with caught.value as refused:
        assert refused.code == 404


def test_lm_evaluation_harness_scores_over_http_as_in_process(
    url: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    monkeypatch.setenv("OPENAI_API_KEY", "any")
    served = LocalCompletionsAPI(
        base_url=f"{url}/v1/completions", model="base", max_length=256, batch_size=2
    )
    assert served.tokenizer_backend == "remote"
    # A window over HTTP has a token less for the answer, and one less for what comes before it.
    local = HFLM(pretrained=str(model), device="cpu", dtype="float32", max_length=254)

    def ask(kind: Any, *arguments: Any) -> list[Any]:
        return [
            Instance(request_type=kind, doc={}, arguments=one, idx=at)
            for at, one in enumerate(arguments)
        ]

    endings = ask("loglikelihood", *(("Parcel 7 is in", f" {city}.") for city in ("Lyon", "Bonn")))
    for ours, theirs in zip(
        served.loglikelihood(endings), local.loglikelihood(endings), strict=True
    ):
        assert ours[0] == pytest.approx(theirs[0], abs=1e-3) and ours[1] == theirs[1]
    documents = ask("loglikelihood_rolling", (TEXT,), (f"{TEXT} " * 20,))
    assert served.loglikelihood_rolling(documents) == pytest.approx(
        local.loglikelihood_rolling(documents), rel=1e-4
    )
