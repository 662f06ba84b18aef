"""The text that the model sees, and which of its tokens carry loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from local_backend.data.chat_messages import Chat, Message, to_chat
from local_backend.data.chat_template import PLAIN_TEMPLATE, find_stop_tokens, split_turns
from local_backend.data.template_support import render_chat
from local_backend.data.text_tokens import tokenize_segments
from local_backend.errors import TrainerError
from local_backend.inference.completion import encode_prompt
from local_backend.models.load_model import LoadedModel

NO_END = (
    "{% for message in messages %}\n[{{ message['role'] }}] {{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}\n[assistant] {% endif %}"
)
"""A template that never writes an end mark."""
FORGETFUL = tiny.CHATML.replace(
    "{{ message['content'] }}",
    "{{ message['content'] if loop.last else message['content'].split('</think>')[-1] }}",
)
"""A template that drops the reasoning of earlier turns, as some models' own do."""
CONVERSATION: list[Message] = [
    {"role": "system", "content": "You route tickets."},
    {"role": "user", "content": "Where is it?"},
    {"role": "assistant", "content": "In Lyon."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "In Oslo."},
]
TOKENIZERS = {
    name: tiny.build_tokenizer(template)
    for name, template in {
        "own": tiny.CHATML,
        "plain": PLAIN_TEMPLATE,
        "no-end": NO_END,
        "forgetful": FORGETFUL,
    }.items()
}
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30) | st.text(
    st.sampled_from("\n a.<|"), min_size=1, max_size=8
)


def texts_with_loss(tokenizer: Any, messages: list[Message]) -> list[str]:
    """Return the stretches of the conversation with loss, decoded from their tokens."""
    [(ids, loss_mask)] = tokenize_segments(
        [split_turns(tokenizer, Chat(messages), [tiny.END])], tokenizer
    )
    runs: list[list[int]] = []
    before = False
    for token, mark in zip(ids, loss_mask, strict=True):
        if mark and not before:
            runs.append([])
        if mark:
            runs[-1].append(token)
        before = mark
    return [tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize("name", ["own", "plain", "no-end"])
def test_every_answer_is_learned_with_its_end_token_and_nothing_else(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    one_turn = CONVERSATION[1:3]
    assert texts_with_loss(tokenizer, one_turn) == [f"In Lyon.{tiny.END}"]
    pieces = split_turns(tokenizer, Chat(one_turn), [tiny.END])
    assert [has_loss for _, has_loss in pieces] == [False, True]


@pytest.mark.parametrize("name", ["own", "plain"])
def test_of_a_conversation_every_assistant_turn_is_learned(name: str) -> None:
    with_loss = texts_with_loss(TOKENIZERS[name], CONVERSATION)
    assert with_loss == [f"In Lyon.{tiny.END}", f"In Oslo.{tiny.END}"]


@pytest.mark.parametrize("name", ["own", "plain"])
def test_the_pieces_are_the_rendered_text_up_to_the_last_end_mark(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    text = "".join(text for text, _ in split_turns(tokenizer, Chat(CONVERSATION), [tiny.END]))
    whole = render_chat(tokenizer, CONVERSATION, add_generation_prompt=False)
    assert text.endswith(f"In Oslo.{tiny.END}")
    assert whole.startswith(text)
    assert not whole[len(text) :].strip()


def test_a_template_that_rewrites_earlier_turns_leaves_the_last_turn_to_learn() -> None:
    tokenizer = TOKENIZERS["forgetful"]
    thought = [
        *CONVERSATION[:2],
        {"role": "assistant", "content": "<think>hm</think>In Lyon."},
        *CONVERSATION[3:],
    ]
    (prompt, prompt_has_loss), (reply, reply_has_loss) = split_turns(
        tokenizer, Chat(thought), [tiny.END]
    )
    assert (prompt_has_loss, reply_has_loss) == (False, True)
    assert prompt == render_chat(tokenizer, thought[:-1], add_generation_prompt=True)
    assert "hm" not in prompt and "In Lyon." in prompt
    assert reply == f"In Oslo.{tiny.END}"


def test_a_template_that_refuses_a_role_is_an_error_that_says_so() -> None:
    tokenizer = tiny.build_tokenizer(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    )
    with pytest.raises(TrainerError, match="no system here"):
        split_turns(tokenizer, Chat(CONVERSATION), [tiny.END])


def test_both_record_formats_become_the_same_messages() -> None:
    system, user, assistant = CONVERSATION[:3]
    converse = {
        "schemaVersion": "bedrock-conversation-2024",
        "system": [{"text": system["content"]}],
        "messages": [
            {"role": turn["role"], "content": [{"text": turn["content"]}]}
            for turn in (user, assistant)
        ],
    }
    assert to_chat(converse, "converse").messages == [system, user, assistant]
    record = tiny.pair(user["content"], assistant["content"])
    assert to_chat(record, "prompt-completion").messages == [user, assistant]


def test_a_model_without_an_end_token_is_refused() -> None:
    with pytest.raises(TrainerError, match="no end-of-sequence token"):
        find_stop_tokens(SimpleNamespace(eos_token_id=None), None)


def test_every_end_token_that_the_model_names_ends_an_answer() -> None:
    configured = SimpleNamespace(eos_token_id=[5, 2, 9])
    assert find_stop_tokens(SimpleNamespace(eos_token_id=2), configured) == [2, 5, 9]


@given(prompt=words, answer=words, name=st.sampled_from(sorted(TOKENIZERS)))
def test_the_prompt_has_the_same_tokens_at_training_and_at_generation(
    prompt: str, answer: str, name: str
) -> None:
    tokenizer = TOKENIZERS[name]
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    [(ids, loss_mask)] = tokenize_segments(
        [split_turns(tokenizer, Chat(messages), [tiny.END])], tokenizer
    )
    prompt_tokens = tokenizer(
        render_chat(tokenizer, messages[:1], add_generation_prompt=True), add_special_tokens=False
    )
    start = loss_mask.index(True)
    assert ids[:start] == prompt_tokens["input_ids"]
    assert all(loss_mask[start:])
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[start:]) == answer + tiny.END


@given(contents=st.lists(words, min_size=4, max_size=4), name=st.sampled_from(["own", "plain"]))
def test_any_conversation_is_learned_answer_by_answer(contents: list[str], name: str) -> None:
    roles = ["user", "assistant"] * 2
    messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
    with_loss = [
        text for text, mark in split_turns(TOKENIZERS[name], Chat(messages), [tiny.END]) if mark
    ]
    assert with_loss == [contents[1] + tiny.END, contents[3] + tiny.END]


@given(contents=st.lists(words, min_size=4, max_size=4), name=st.sampled_from(["own", "plain"]))
def test_later_turns_have_the_same_tokens_at_training_and_at_generation(
    contents: list[str], name: str
) -> None:
    roles = ["user", "assistant"] * 2
    messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
    tokenizer = TOKENIZERS[name]
    [(ids, loss_mask)] = tokenize_segments(
        [split_turns(tokenizer, Chat(messages), [tiny.END])], tokenizer
    )
    last_prompt = len(loss_mask) - loss_mask[::-1].index(False)
    config = SimpleNamespace(max_position_embeddings=tiny.CONTEXT)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: config))
    loaded = LoadedModel(model, tokenizer, "", [tokenizer.eos_token_id], False)
    assert encode_prompt(loaded, {"messages": messages[:3]}) == ids[:last_prompt]
