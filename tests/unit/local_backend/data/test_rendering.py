"""Every kind of tokenizer with every form of template: training sees what generation sees."""

from __future__ import annotations

import functools
import itertools
from types import SimpleNamespace
from typing import Any

import chat_templates
import pytest
import text_templates
import tiny
import tokenizer_kinds
from hypothesis import given, settings
from hypothesis import strategies as st

from local_backend.data.chat_messages import Chat, Message
from local_backend.data.chat_skeletons import Skeletons
from local_backend.data.chat_template import (
    PLAIN_TEMPLATE,
    RecordFormat,
    ensure_chat_template,
    split_prompt,
    split_turns,
)
from local_backend.data.text_tokens import text_tokenizer, tokenize_segments
from local_backend.errors import TrainerError
from local_backend.inference.generate import encode_prompt, encode_scored
from local_backend.inference.log_likelihood import tokenize_documents
from local_backend.models.load_tokenizer import fix_template_date
from local_backend.training.objectives import OBJECTIVES

CHATML = tiny.CHATML
TEMPLATES: dict[str, tuple[str, str]] = {
    "plain": (PLAIN_TEMPLATE, "</s>"),
    "chatml": (CHATML, "<|im_end|>"),
    "llama2": (text_templates.LLAMA2, "</s>"),
    "llama3": (text_templates.LLAMA3, "<|eot_id|>"),
    "mistral": (text_templates.MISTRAL_TEXT, "</s>"),
    "qwen2.5": (chat_templates.QWEN25, "<|im_end|>"),
    "qwen3": (chat_templates.QWEN3, "<|im_end|>"),
    "gemma": (text_templates.GEMMA, "<end_of_turn>"),
    "phi": (text_templates.PHI, "<|end|>"),
    "gpt-oss": (chat_templates.GPT_OSS, "<|im_end|>"),
    "deepseek-r1": (chat_templates.DEEPSEEK_R1, "</s>"),
    "vicuna": (text_templates.VICUNA, "</s>"),
}
"""Each template, with the token that ends its answers."""
LOSSY = {"wordpiece", "metaspace-always"}
"""Kinds that drop or fold characters, so that decoding gives another text."""
TEXTS = [
    "In Lyon.",
    " lead",
    "\n\nlines\n",
    "7",
    '{"label": "billing"}',
    "Grüße 🎉 日本",
    "[INST] a",
]
USER = {"role": "user", "content": "Where is it?"}


@functools.cache
def build(kind: str, template: str) -> Any:
    """Return a tokenizer of a kind with a template."""
    text, end = TEMPLATES[template]
    return tokenizer_kinds.wrap(tokenizer_kinds.KINDS[kind](), text, end)


def encode(tokenizer: Any, messages: list[Message], end: str) -> tuple[list[int], list[bool]]:
    """Return the tokens and the loss mask that training has."""
    [encoded] = tokenize_segments([split_turns(tokenizer, Chat(messages), [end])], tokenizer)
    return encoded


def prompt_tokens(tokenizer: Any, messages: list[Message], end: str) -> list[int]:
    """Return the tokens that generation begins with."""
    texts = split_prompt(tokenizer, Chat(messages), [end])
    return text_tokenizer(tokenizer).encode([(text, False) for text in texts])[0]


def runs_of(mask: list[bool]) -> list[tuple[int, int]]:
    """Return begin and end of each run of tokens with loss."""
    edges = [
        i for i, pair in enumerate(itertools.pairwise([False, *mask, False])) if len(set(pair)) == 2
    ]
    return list(zip(edges[::2], edges[1::2], strict=True))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", tokenizer_kinds.KINDS)
def test_training_sees_the_tokens_of_generation_and_learns_the_answer_with_its_end(
    kind: str, template: str
) -> None:
    tokenizer, end = build(kind, template), TEMPLATES[template][1]
    for answer in TEXTS:
        messages = [USER, {"role": "assistant", "content": answer}]
        ids, mask = encode(tokenizer, messages, end)
        prompt = prompt_tokens(tokenizer, messages[:1], end)
        assert ids[: len(prompt)] == prompt
        assert mask == [False] * len(prompt) + [True] * (len(ids) - len(prompt))
        assert ids[-1] == tokenizer.convert_tokens_to_ids(end)
        learned = "".join(
            text
            for _, text, has_loss in text_tokenizer(tokenizer).explain(
                split_turns(tokenizer, Chat(messages), [end])
            )
            if has_loss
        )
        assert learned.endswith(end) and answer.strip() in learned
        if kind not in LOSSY:
            decoded = tokenizer.decode(ids[len(prompt) :], skip_special_tokens=False)
            # Llama 2's kind has a space after each special token.
            assert decoded.replace(" ", "") == learned.replace(" ", "")


@pytest.mark.parametrize("template", sorted({*TEMPLATES} - {"qwen3", "gpt-oss", "deepseek-r1"}))
@pytest.mark.parametrize("kind", tokenizer_kinds.KINDS)
def test_each_turn_of_a_conversation_follows_its_own_prompt(kind: str, template: str) -> None:
    tokenizer, end = build(kind, template), TEMPLATES[template][1]
    messages = [USER, {"role": "assistant", "content": "In Lyon."}] * 3
    ids, mask = encode(tokenizer, messages, end)
    runs = runs_of(mask)
    assert len(runs) == 3
    for turn, (begin, stop) in enumerate(runs):
        assert ids[:begin] == prompt_tokens(tokenizer, messages[: 2 * turn + 1], end)
        assert ids[stop - 1] == tokenizer.convert_tokens_to_ids(end)


@pytest.mark.parametrize("kind", tokenizer_kinds.KINDS)
def test_a_text_has_the_tokens_of_the_whole_where_none_reaches_into_the_answer(kind: str) -> None:
    equal = 0
    for template in TEMPLATES:
        tokenizer, end = build(kind, template), TEMPLATES[template][1]
        messages = [USER, {"role": "assistant", "content": "In Lyon."}]
        text = "".join(text for text, _ in split_turns(tokenizer, Chat(messages), [end]))
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        prompt = prompt_tokens(tokenizer, messages[:1], end)
        if whole[: len(prompt)] == prompt:
            assert encode(tokenizer, messages, end)[0] == whole
            equal += 1
    # The others' prompts end within a word, or with line ends that GPT-2's pattern takes apart.
    assert equal >= len(TEMPLATES) - 4


def test_an_answer_has_no_space_before_it_that_the_text_has_not() -> None:
    """Llama's issue with `[/INST]` and a text: tokenized by itself, the answer gets a space."""
    tokenizer = build("metaspace", "mistral")
    ids, mask = encode(tokenizer, [USER, {"role": "assistant", "content": "In"}], "</s>")
    first = tokenizer.convert_ids_to_tokens(ids[mask.index(True)])
    assert not first.startswith("\u2581")


CONTENT = st.text(st.sampled_from("ab \n.[]<|>▁é日"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(tokenizer_kinds.KINDS)),
    st.sampled_from(sorted(TEMPLATES)),
    st.lists(CONTENT, min_size=2, max_size=4),
)
def test_any_text_is_learned_after_the_prompt_of_generation(
    kind: str, template: str, texts: list[str]
) -> None:
    tokenizer, end = build(kind, template), TEMPLATES[template][1]
    pairs = texts[: len(texts) // 2 * 2]
    messages = [
        {"role": "assistant" if number % 2 else "user", "content": f"{text}."}
        for number, text in enumerate(pairs)
    ]
    ids, mask = encode(tokenizer, messages, end)
    prompt = prompt_tokens(tokenizer, messages[:-1], end)
    begin, stop = runs_of(mask)[-1]
    assert ids[:begin] == prompt
    assert (stop, ids[-1]) == (len(ids), tokenizer.convert_tokens_to_ids(end))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", tokenizer_kinds.KINDS)
def test_special_tokens_in_a_message_are_text(kind: str, template: str) -> None:
    tokenizer, end = build(kind, template), TEMPLATES[template][1]
    special = set(tokenizer.convert_tokens_to_ids(tokenizer_kinds.SPECIAL[1:]))

    def specials(question: str, answer: str) -> list[int]:
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        ids, _ = encode(tokenizer, messages, end)
        pieces = text_tokenizer(tokenizer).explain(split_turns(tokenizer, Chat(messages), [end]))
        assert [token for token, _, _ in pieces] == ids
        if kind not in LOSSY:
            assert answer in "".join(text for _, text, _ in pieces)
        return [token for token in ids if token in special]

    question = f"What does {end} do? <s> \ufdd0\ufdd1\ufdd2"
    marked = specials(question, f"It is {end} and <|im_start|>user, then \ufdd2")
    assert marked == specials("What does it do?", "It is an end and a beginning, then")


@pytest.mark.parametrize(("kind", "bos"), [("llama3", True), ("byte-level", False)])
def test_the_plain_template_begins_as_the_tokenizer_begins_a_text(kind: str, bos: bool) -> None:
    tokenizer = tokenizer_kinds.wrap(tokenizer_kinds.KINDS[kind](), "")
    assert ensure_chat_template(tokenizer)
    ids, _ = encode(tokenizer, [USER, {"role": "assistant", "content": "x"}], "</s>")
    assert (ids[0] == tokenizer.bos_token_id) is bos


def test_a_template_that_leaves_a_system_message_out_is_an_error() -> None:
    silent = CHATML.replace(
        "{% for message in messages %}",
        "{% for message in messages if message['role'] != 'system' %}",
    )
    tokenizer = tokenizer_kinds.wrap(tokenizer_kinds.KINDS["byte-level"](), silent)
    messages = [
        {"role": "system", "content": "Be short."},
        USER,
        {"role": "assistant", "content": "x"},
    ]
    with pytest.raises(TrainerError, match="leaves out a system message"):
        split_turns(tokenizer, Chat(messages), ["<|im_end|>"])


def test_the_date_of_a_template_is_fixed() -> None:
    tokenizer = tokenizer_kinds.wrap(
        tokenizer_kinds.KINDS["byte-level"](), text_templates.DATED, "<|im_end|>"
    )
    assert fix_template_date(tokenizer, "2026-02-03")
    text = tokenizer.apply_chat_template([USER], tokenize=False, add_generation_prompt=True)
    assert "Today: 03 Feb 2026<|im_end|>" in text
    assert not fix_template_date(tokenizer, "2027-01-01"), "once fixed, it stays"
    assert not fix_template_date(build("byte-level", "chatml"), "2026-02-03")


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_quick_way_splits_as_the_complete_one(
    template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, end = build("byte-level", template), TEMPLATES[template][1]
    answers = [*TEXTS, "<think>\nHm.\n</think>\n\nYes.", "  both ends  ", "100 %s {}"]
    chats = [
        Chat([USER, {"role": "assistant", "content": first}, USER, {**reply, "content": second}])
        for reply in [{"role": "assistant"}]
        for first, second in itertools.product(answers, repeat=2)
    ]
    quick = [split_turns(tokenizer, chat, [end]) for chat in chats]
    monkeypatch.setattr(Skeletons, "split", lambda *_: None)
    assert quick == [split_turns(tokenizer, chat, [end]) for chat in chats]


def loaded(kind: str, template: str = "plain") -> Any:
    """Return what generation and scoring read of a loaded model, without weights."""
    tokenizer, end = build(kind, template), TEMPLATES[template][1]
    return SimpleNamespace(tokenizer=tokenizer, stop_texts=[end], context_length=512)


@pytest.mark.parametrize("kind", tokenizer_kinds.KINDS)
def test_documents_have_the_tokenizers_own_marks_wherever_they_are_tokenized(kind: str) -> None:
    """Without BOS, perplexities of Gemma are off by orders of magnitude (lm-eval #1465)."""
    model = loaded(kind)
    tokenizer = model.tokenizer
    own = tokenizer("In Lyon.")["input_ids"]
    plain = tokenizer("In Lyon.", add_special_tokens=False)["input_ids"]
    before = own[: own.index(plain[0])]
    objective = OBJECTIVES["CONTINUED_PRE_TRAINING"]
    record_format = RecordFormat("input", tokenizer, ["</s>"])
    segments = objective.render({"input": "In Lyon."}, record_format)
    trained, mask = objective.complete(*text_tokenizer(tokenizer).encode(segments), tokenizer)
    assert trained == [*before, *plain, tokenizer.eos_token_id]
    assert mask == [False] + [True] * (len(trained) - 1)
    assert encode_prompt(model, {"text": "In Lyon."}) == [*before, *plain]
    assert tokenize_documents(model, ["In Lyon."]) == [[*before, *plain]]
    if before:
        written = tokenizer.decode(before) + "In Lyon."
        assert encode_prompt(model, {"text": written})[: len(before) + 1] != before * 2


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", tokenizer_kinds.KINDS)
def test_an_answer_is_scored_by_the_tokens_that_it_is_trained_with(
    kind: str, template: str
) -> None:
    model, end = loaded(kind, template), TEMPLATES[template][1]
    reply = {"role": "assistant", "content": "In Lyon."}
    prompt, text = encode_scored(model, {"prompt": {"messages": [USER]}, "reply": reply})
    ids, _ = encode(model.tokenizer, [USER, reply], end)
    assert prompt == encode_prompt(model, {"messages": [USER]})
    assert ids[: len(prompt) + len(text)] == [*prompt, *text]


def test_a_tokenizer_in_python_takes_special_tokens_in_a_message_as_text() -> None:
    from transformers import ByT5Tokenizer

    tokenizer: Any = ByT5Tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    chats = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]
        for text in ("x <|im_end|> y", "x |im_end| y")
    ]
    marked, plain = (encode(tokenizer, chat, "<|im_end|>")[0] for chat in chats)
    assert marked.count(end) == plain.count(end) == 2
    assert len(marked) == len(plain) + len("<>"), "a byte is a token, and nothing else is there"


def test_special_tokens_in_the_names_of_a_tool_are_text() -> None:
    tokenizer, end = build("byte-level", "qwen2.5"), "<|im_end|>"

    def ends(name: str) -> int:
        properties = {name: {"type": "string"}}
        function = {"name": "f", "description": "d", "parameters": {"properties": properties}}
        call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": {name: "v"}}}
        reply = {"role": "assistant", "content": "", "tool_calls": [call]}
        chat = Chat([USER, reply], [{"type": "function", "function": function}])
        [(ids, _)] = tokenize_segments([split_turns(tokenizer, chat, [end])], tokenizer)
        return ids.count(tokenizer.convert_tokens_to_ids(end))

    assert ends(end) == ends("town")


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ("{{ 1 / 0 }}", "refuses these messages: division by zero"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "refuses these messages"),
        ("{{ }", "is not valid"),
    ],
)
def test_what_a_template_does_wrong_is_named(change: str, refusal: str) -> None:
    tokenizer = tokenizer_kinds.wrap(tokenizer_kinds.KINDS["byte-level"](), change + CHATML)
    with pytest.raises(TrainerError, match=refusal):
        split_turns(tokenizer, Chat([USER, {"role": "assistant", "content": "x"}]), ["<|im_end|>"])


@pytest.mark.parametrize("change", ["|upper", "|tojson", ".split()|join(' ')", "|trim"])
def test_a_template_that_rewrites_a_text_leaves_nothing_out(change: str) -> None:
    template = CHATML.replace("message['content']", f"message['content']{change}")
    tokenizer = tokenizer_kinds.wrap(tokenizer_kinds.KINDS["byte-level"](), template)
    question = {"role": "user", "content": ' "Where"\n\nis  my parcel "now"?\n'}
    chat = Chat([question, {"role": "assistant", "content": "x"}])
    assert split_turns(tokenizer, chat, ["<|im_end|>"])


def test_dates_are_fixed_in_each_template_of_a_model_and_however_they_are_written() -> None:
    texts = {
        "default": "\n\nToday: {{ strftime_now(format='%Y') }}",
        "tool_use": "{{ strftime_now('%B it\\'s %Y') }}",
    }
    tokenizer = tokenizer_kinds.wrap(tokenizer_kinds.KINDS["byte-level"](), "x")
    tokenizer.chat_template = dict(texts)
    assert fix_template_date(tokenizer, "2026-01-02")
    default = tokenizer.apply_chat_template([USER], tokenize=False)
    assert default == "\n\nToday: 2026"
    with_tools = tokenizer.apply_chat_template([USER], tools=[{"name": "f"}], tokenize=False)
    assert with_tools == "January it's 2026"
