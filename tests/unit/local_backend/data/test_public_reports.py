"""What users of other trainers reported of rendering and tokenizing, tried on this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chat_templates
import pytest
import tiny
import tokenizer_kinds
from test_rendering import TEMPLATES, USER, build, encode, loaded, prompt_tokens

from local_backend.data.chat_messages import to_chat
from local_backend.data.chat_template import split_turns
from local_backend.inference.completion import encode_prompt
from local_backend.inference.log_likelihood import build_window_rows, tokenize_documents
from local_backend.models.load_tokenizer import fix_template_date, load_tokenizer

WITH_BOS = ("llama3", "tekken", "metaspace", "llama2", "gemma")
ANSWER = {"role": "assistant", "content": "In Lyon."}


@pytest.mark.parametrize("kind", WITH_BOS)
@pytest.mark.parametrize("template", ["llama3", "mistral", "gemma", "plain", "vicuna"])
def test_a_chat_begins_with_one_bos(kind: str, template: str) -> None:
    """huggingface/alignment-handbook#127, OpenRLHF#393: the template's and the tokenizer's."""
    tokenizer, end = build(kind, template), TEMPLATES[template][1]
    ids, _ = encode(tokenizer, [USER, ANSWER], end)
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert prompt_tokens(tokenizer, [USER], end).count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("kind", WITH_BOS)
def test_a_scored_document_begins_with_one_bos_that_is_not_scored(kind: str) -> None:
    """EleutherAI/lm-evaluation-harness#1465 (none), #1586 (EOS instead), #3333 (two)."""
    model = loaded(kind)
    [ids] = tokenize_documents(model, ["It is in Lyon."])
    assert ids.count(model.tokenizer.bos_token_id) == 1 and ids[0] == model.tokenizer.bos_token_id
    [row] = build_window_rows(0, ids, 512)
    assert row.target_count == len(ids) - 1


def test_a_rendered_prompt_of_a_client_gets_no_second_bos() -> None:
    """Clients of imported models send the template's text, BOS included, as Bedrock wants it."""
    model = loaded("llama3", "llama3")
    text = model.tokenizer.apply_chat_template([USER], tokenize=False, add_generation_prompt=True)
    assert encode_prompt(model, {"text": text}) == encode_prompt(model, {"messages": [USER]})


@pytest.mark.parametrize("template", ["qwen2.5", "llama3", "gemma", "deepseek-r1"])
def test_a_pair_of_prompt_and_completion_is_learned_behind_the_generation_prompt(
    template: str,
) -> None:
    """huggingface/trl#4147, #6105: the prompt was rendered without it, so it was learned too."""
    tokenizer, end = build("byte-level", template), TEMPLATES[template][1]
    chat = to_chat({"prompt": "Where is it?", "completion": "In Lyon."}, "prompt-completion")
    (prompt, _), (reply, _) = split_turns(tokenizer, chat, [end])
    assert prompt == tokenizer.apply_chat_template(
        [USER], tokenize=False, add_generation_prompt=True
    )
    assert reply.endswith(f"In Lyon.{end}") and "assistant" not in reply.lower()


def test_a_template_whose_prompt_opens_the_reasoning_learns_no_second_opening() -> None:
    """huggingface/trl#5213: prompt and whole text differ for a thinking model."""
    tokenizer = tokenizer_kinds.wrap(
        tokenizer_kinds.KINDS["byte-level"](), chat_templates.QWEN3_THINKING, "<|im_end|>"
    )
    for answer in ("Yes.", "<think>\nHm.\n</think>\n\nYes."):
        messages = [USER, {"role": "assistant", "content": answer}]
        ids, mask = encode(tokenizer, messages, "<|im_end|>")
        text = tokenizer.decode(ids, skip_special_tokens=False)
        assert text.count("<think>") == text.count("</think>") == 1
        prompt = prompt_tokens(tokenizer, [USER], "<|im_end|>")
        assert ids[: len(prompt)] == prompt and mask.index(True) == len(prompt)


def test_the_end_is_learned_where_pad_and_end_are_one_token(tmp_path: Path) -> None:
    """unslothai/unsloth#416, huggingface/alignment-handbook#127: the answers never end."""
    tokenizer = tiny.build_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path)
    prepared, _ = load_tokenizer(str(tmp_path))
    ids, mask = encode(prepared, [USER, ANSWER], tiny.END)
    assert (ids[-1], mask[-1]) == (prepared.eos_token_id, True)
    assert prepared.pad_token_id != prepared.eos_token_id


def test_a_date_in_a_default_system_message_is_rendered_and_fixed() -> None:
    """huggingface/text-generation-inference#2987: Mistral Small 3's template ended in an error."""
    template = (
        "{%- set today = strftime_now('%Y-%m-%d') %}{%- set words = 'Today is ' + today + '.' %}"
        "{{- bos_token }}{{- words }}" + tiny.CHATML
    )
    tokenizer: Any = tokenizer_kinds.wrap(tokenizer_kinds.KINDS["tekken"](), template, "<|im_end|>")
    assert fix_template_date(tokenizer, "2026-01-31")
    text = tokenizer.apply_chat_template([USER], tokenize=False)
    assert text.startswith("<s>Today is 2026-01-31.<|im_start|>user")
