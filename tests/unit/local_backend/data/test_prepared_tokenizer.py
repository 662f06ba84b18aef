"""The tokenizer that is kept for data preview renders and tokenizes as the one of training."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import chat_templates
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_backend.data import prepared_tokenizer
from local_backend.data.chat_template import RecordFormat
from local_backend.data.prepared_tokenizer import PreparedTokenizer
from local_backend.data.text_tokens import tokenize_segments
from local_backend.data.tokenize_records import TokenizerFacts, load_tokenizer_facts
from local_backend.errors import TrainerError
from local_backend.models.load_tokenizer import load_tokenizer
from local_backend.training.objectives import OBJECTIVES

TEMPLATES = {
    name: value for name, value in vars(chat_templates).items() if name.isupper() and name[0] != "_"
} | {"CHATML": tiny.CHATML, "PLAIN": None}
KINDS = ("byte-level", "metaspace", "wordpiece")
TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["Where is it?", " a  b\n\n", f"x{tiny.END}y", "Grüße 🎉 日本", "e\u0301\u200b", "Straße ﬁ ①"]
)
BLOCK = st.builds(lambda text: {"text": text}, TEXT)
THOUGHT = st.builds(lambda text: {"reasoningContent": {"reasoningText": {"text": text}}}, TEXT)
CALL = st.just({"toolUse": {"toolUseId": "call_1", "name": "f", "input": {"x": [1, None]}}})
RESULT = st.just({"toolResult": {"toolUseId": "call_1", "content": [{"text": "sunny"}]}})
RARELY = st.integers(0, 3).map(lambda number: number == 0)
TOOLS = {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}}}]}


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a staged conversation, some with a system text, tools, calls and reasoning."""
    messages = []
    for _ in range(draw(st.integers(1, 2))):
        messages.append({"role": "user", "content": [draw(BLOCK)]})
        if draw(RARELY):
            messages.append({"role": "assistant", "content": [draw(THOUGHT | BLOCK), draw(CALL)]})
            messages.append({"role": "user", "content": [draw(RESULT)]})
        thought = [draw(THOUGHT)] if draw(RARELY) else []
        messages.append({"role": "assistant", "content": [*thought, draw(BLOCK)]})
    system = {"system": [draw(BLOCK)]} if draw(st.booleans()) else {}
    return {
        **system,
        "messages": messages,
        **({"toolConfig": TOOLS} if draw(st.booleans()) else {}),
    }


def build_tokenizer(kind: str, template: str | None) -> Any:
    """Return a tokenizer with another algorithm, normalizer and beginning-of-text token."""
    if kind == "byte-level":
        return tiny.build_tokenizer(template)
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "<|im_start|>", tiny.END]
    is_wordpiece = kind == "wordpiece"
    inner = Tokenizer(models.WordPiece(unk_token="<unk>") if is_wordpiece else models.Unigram())
    inner.normalizer = normalizers.BertNormalizer() if is_wordpiece else normalizers.NFKC()
    inner.pre_tokenizer = (
        pre_tokenizers.BertPreTokenizer() if is_wordpiece else pre_tokenizers.Metaspace()
    )
    options = {"vocab_size": 300, "special_tokens": special, "show_progress": False}
    inner.train_from_iterator(
        tiny.SENTENCES,
        trainers.WordPieceTrainer(**options)
        if is_wordpiece
        else trainers.UnigramTrainer(unk_token="<unk>", **options),
    )
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token=tiny.END, unk_token="<unk>"
    )
    tokenizer.chat_template = template
    return tokenizer


def save_model(folder: Path, kind: str, template: str | None) -> Path:
    """Save a tokenizer and a configuration, without weights, and return the folder."""
    from transformers import LlamaConfig

    build_tokenizer(kind, template).save_pretrained(folder)
    LlamaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1).save_pretrained(folder)
    (folder / "model.safetensors").touch()
    return folder


def load(folder: Path) -> TokenizerFacts:
    """Return what data preview loads."""
    weights: Any = [{"kind": "folder", "path": str(folder)}]
    return load_tokenizer_facts({"name": "tiny", "weights": weights})


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Saves a model for each kind of tokenizer and template, once."""
    return cache(
        lambda kind, name: save_model(tmp_path_factory.mktemp("model"), kind, TEMPLATES[name])
    )


def encode(tokenizer: Any, facts: TokenizerFacts, record: dict[str, Any]) -> Any:
    """Return a record's segments, token ids and loss mask, or the refusal."""
    stops = [str(tokenizer.convert_ids_to_tokens(token)) for token in facts.stop_ids]
    try:
        segments = OBJECTIVES["FINE_TUNING"].render(
            record, RecordFormat("converse", tokenizer, stops)
        )
    except TrainerError as refusal:
        return refusal.message
    return segments, list(tokenize_segments([segments], tokenizer))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_preview_renders_and_tokenizes_as_training_does(
    kind: str, name: str, folder_of: Any
) -> None:
    folder = folder_of(kind, name)
    original = load(folder)
    kept = load(folder)
    assert not isinstance(original.tokenizer, PreparedTokenizer)
    assert isinstance(kept.tokenizer, PreparedTokenizer)
    assert {**vars(kept), "tokenizer": None} == {**vars(original), "tokenizer": None}
    trained = load_tokenizer(str(folder))[0]

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(records())
    def compare(record: dict[str, Any]) -> None:
        assert encode(kept.tokenizer, kept, record) == encode(trained, original, record)

    compare()


def test_changed_files_broken_files_and_other_attributes_are_those_of_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(tmp_path / "model", "byte-level", tiny.CHATML)
    first = load(folder).tokenizer
    assert load(folder).tokenizer.get_vocab() == first.get_vocab(), "loaded when it is needed"
    template = tiny.CHATML.replace("im_start", "im_begin")
    (folder / "chat_template.jinja").write_text(template)
    assert load(folder).tokenizer.chat_template == template
    kept = load(folder).tokenizer
    assert isinstance(kept, PreparedTokenizer) and kept.chat_template == template
    [file] = (tmp_path / "models" / "tokenizers").iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    assert not isinstance(load(folder).tokenizer, PreparedTokenizer)
    assert isinstance(load(folder).tokenizer, PreparedTokenizer), "kept again"
    monkeypatch.setattr(prepared_tokenizer, "FORMAT", 0)
    assert not isinstance(load(folder).tokenizer, PreparedTokenizer)
    other = save_model(tmp_path / "other", "wordpiece", None)
    folder.rename(tmp_path / "gone")
    load(other)
    [file] = (tmp_path / "models" / "tokenizers").iterdir()
    assert file.name.startswith("other-"), "the file of a folder that is gone is removed"


def test_a_tokenizer_that_the_copy_would_not_equal_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(tmp_path / "model", "byte-level", tiny.CHATML)
    render = PreparedTokenizer.apply_chat_template
    monkeypatch.setattr(
        PreparedTokenizer,
        "apply_chat_template",
        lambda *args, **kwargs: render(*args, **kwargs) + " ",
    )
    load(folder)
    assert not isinstance(load(folder).tokenizer, PreparedTokenizer)


PROGRAM = """
import io, json, sys
from local_backend.data.tokenize_records import reply_to
request, record = json.loads(sys.argv[1])
replies = []
reply_to(request, io.BytesIO(json.dumps(record).encode()), replies.append)
print(json.dumps([replies, sorted(n for n in ("torch", "transformers") if sys.modules.get(n))]))
"""


def test_preview_imports_no_torch_and_the_second_time_no_transformers(tiny_model: Path) -> None:
    request = {
        "model": {"name": "tiny", "weights": [{"kind": "folder", "path": str(tiny_model)}]},
        "customizationType": "FINE_TUNING",
        "format": "prompt-completion",
        "preview": True,
    }
    argument = json.dumps([request, tiny.pair("Grüße? 🎉", "日本 👍🏽")])

    def run() -> tuple[Any, list[str]]:
        command = [sys.executable, "-c", PROGRAM, argument]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        replies, imported = json.loads(done.stdout)
        return replies, imported

    first, imported = run()
    assert imported == ["transformers"]
    assert run() == (first, [])
