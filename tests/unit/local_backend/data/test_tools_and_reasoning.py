"""Tool calls, results and reasoning through chat templates of the forms that models have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import chat_templates
import pytest
import tiny

from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import Conversation, Reasoning
from local_backend.data.chat_messages import to_chat
from local_backend.data.chat_template import PLAIN_TEMPLATE, split_turns
from local_backend.data.text_tokens import text_tokenizer, tokenize_segments
from local_backend.errors import TrainerError
from local_backend.inference.answers import parse_answer
from local_backend.inference.completion import encode_prompt
from local_backend.models.load_model import LoadedModel

TEMPLATES = {
    name: value for name, value in vars(chat_templates).items() if name.isupper() and name[0] != "_"
}
TOKENIZERS = {
    name: tiny.build_tokenizer(template)
    for name, template in {**TEMPLATES, "CHATML": tiny.CHATML, "PLAIN": PLAIN_TEMPLATE}.items()
}
Block = dict[str, Any]
TOOLS = {
    "tools": [
        {
            "toolSpec": {
                "name": "get_weather",
                "description": "Weather by town.",
                "inputSchema": {"json": {"type": "object", "properties": {"town": {}}}},
            }
        }
    ]
}


def thought(text: str) -> Block:
    """Return a block of reasoning."""
    return {"reasoningContent": {"reasoningText": {"text": text}}}


def call(town: str, identifier: str = "call_1") -> Block:
    """Return a block with a call of the tool."""
    return {"toolUse": {"toolUseId": identifier, "name": "get_weather", "input": {"town": town}}}


def result(text: str, identifier: str = "call_1") -> Block:
    """Return a block with a result of the tool."""
    return {"toolResult": {"toolUseId": identifier, "content": [{"text": text}]}}


def user(*blocks: Block | str) -> Block:
    """Return a user's turn; a string is a text block."""
    return {"role": "user", "content": [{"text": b} if isinstance(b, str) else b for b in blocks]}


def reply(*blocks: Block | str, weight: int | None = None) -> Block:
    """Return an assistant's turn."""
    return user(*blocks) | {"role": "assistant"} | ({} if weight is None else {"weight": weight})


def record(*turns: Block, tools: bool = True, system: str = "") -> Block:
    """Return a staged record."""
    value: Block = {"messages": list(turns)} | ({"toolConfig": TOOLS} if tools else {})
    return {"system": [{"text": system}], **value} if system else value


ASK = user("Question one?")
RECORDS = {
    "call": record(ASK, reply(call("Bern")), user(result("sunny")), reply("It shines.")),
    "call-alone": record(ASK, reply(call("Bern")), system="Be brief."),
    "text-and-call": record(
        ASK, reply("Let me see.", call("Bern")), user(result("sunny")), reply("It shines.")
    ),
    "two-calls": record(
        ASK,
        reply(call("Bern"), call("Oslo", "b")),
        user(result("sunny"), result("rainy", "b")),
        reply("Both known."),
    ),
    "thought": record(ASK, reply(thought("Hmm hmm."), "It shines."), tools=False),
    "thought-and-call": record(
        ASK,
        reply(thought("Hmm hmm."), call("Bern")),
        user(result("sunny")),
        reply(thought("Ah yes."), "It shines."),
    ),
    "two-thoughts": record(
        ASK,
        reply(thought("Hmm hmm."), "It shines."),
        user("Question two?"),
        reply(thought("Ah yes."), "It rains."),
        tools=False,
    ),
    "unlearned-first": record(
        ASK,
        reply(call("Bern"), weight=0),
        user(result("sunny"), "Question two?"),
        reply("It rains."),
    ),
    "unlearned-last": record(
        ASK, reply(call("Bern")), user(result("sunny")), reply("It shines.", weight=0)
    ),
}
WITHOUT = {
    ("QWEN25", "thought"): "reasoning",
    ("QWEN25", "thought-and-call"): "reasoning",
    ("QWEN25", "two-thoughts"): "reasoning",
    ("LLAMA31", "text-and-call"): "a text before a tool call",
    ("LLAMA31", "two-calls"): "several tool calls in one turn",
    ("LLAMA31", "thought"): "reasoning",
    ("LLAMA31", "thought-and-call"): "reasoning",
    ("LLAMA31", "two-thoughts"): "reasoning",
    ("MISTRAL", "text-and-call"): "a text before a tool call",
    ("MISTRAL", "thought"): "reasoning",
    ("MISTRAL", "thought-and-call"): "reasoning",
    ("MISTRAL", "two-thoughts"): "reasoning",
    ("GPT_OSS", "two-calls"): "several tool calls in one turn",
    **{
        (name, kind): "the list of tools"
        for name in ("DEEPSEEK_R1", "DEEPSEEK_R1_OLD")
        for kind, value in RECORDS.items()
        if "toolConfig" in value
    },
    **{
        (name, kind): {
            "thought": "reasoning",
            "two-thoughts": "reasoning",
            "thought-and-call": "the list of tools, tool calls and reasoning",
        }.get(kind, "the list of tools and tool calls")
        for name in ("CHATML", "PLAIN")
        for kind in RECORDS
    },
}
"""What a template lacks for a record, as its error names it."""
LAST_ALONE = {
    *((name, "two-thoughts") for name in ("GPT_OSS", "DEEPSEEK_R1", "DEEPSEEK_R1_OLD")),
    *(
        (name, kind)
        for name in ("QWEN3", "QWEN3_THINKING")  # an empty thought, in the last turn alone
        for kind in ("two-thoughts", "call", "text-and-call", "two-calls")
    ),
}
"""Templates that rewrite an earlier turn of a record, so that the last one alone is learned."""
CASES = [(name, kind) for name in TOKENIZERS for kind in RECORDS]


def loaded_model(tokenizer: Any) -> LoadedModel:
    """Return what generation needs of a model to make its prompt."""
    config = SimpleNamespace(max_position_embeddings=4096)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: config))
    return LoadedModel(model, tokenizer, "", [tokenizer.eos_token_id], False)  # type: ignore[arg-type]


def encode(tokenizer: Any, value: Block) -> tuple[list[int], list[bool]]:
    """Return the tokens of a record and which of them carry loss."""
    segments = split_turns(tokenizer, to_chat(value, "converse"), [tiny.END])
    [(ids, mask)] = tokenize_segments([segments], tokenizer)
    return ids, mask


def learned_runs(mask: list[bool]) -> list[tuple[int, int]]:
    """Return begin and end of each run of tokens with loss."""
    edges = [
        i
        for i in range(len(mask) + 1)
        if (mask[i - 1] if i else False) != (i < len(mask) and mask[i])
    ]
    return list(zip(edges[::2], edges[1::2], strict=True))


def words_of(turn: Block) -> list[str]:
    """Return what a turn says: texts, reasoning, names and values of calls."""
    words = []
    for block in turn["content"]:
        if "toolUse" in block:
            words += [block["toolUse"]["name"], block["toolUse"]["input"]["town"]]
        elif "reasoningContent" in block:
            words.append(block["reasoningContent"]["reasoningText"]["text"])
        else:
            words.append(block["text"])
    return words


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_own_tokens_alone_are_learned_after_the_prompt_of_generation(name: str, kind: str) -> None:
    tokenizer, value = TOKENIZERS[name], RECORDS[kind]
    lacks = WITHOUT.get((name, kind))
    if lacks:
        with pytest.raises(TrainerError, match=f"leaves out {lacks}, which"):
            encode(tokenizer, value)
        return
    ids, mask = encode(tokenizer, value)
    runs = learned_runs(mask)
    turns = value["messages"]
    expected = [
        i for i, turn in enumerate(turns) if turn["role"] == "assistant" and turn.get("weight") != 0
    ]
    if (name, kind) in LAST_ALONE:
        expected = expected[-1:]
    assert len(runs) == len(expected)
    for (begin, end), index in zip(runs, expected, strict=True):
        text = tokenizer.decode(ids[begin:end])
        assert text.count(tiny.END) == 1 and text.endswith(tiny.END)
        assert [word for word in words_of(turns[index]) if word not in text] == []
        others = {"Question", "sunny", "rainy", "Weather", "user", "system"}
        assert [word for word in others if word in text] == []
        system = [{"role": "system", "content": s["text"]} for s in value.get("system", ())]
        prompt = {**value, "messages": [*system, *turns[:index]]}
        prompt.pop("system", None)
        assert encode_prompt(loaded_model(tokenizer), prompt) == ids[:begin]
        answer = parse_answer(
            tokenizer, ids[begin : end - 1], [tiny.END], with_tools="toolConfig" in value
        )
        parsed = parse_record({**value, "messages": turns[: index + 1]}, {})
        assert isinstance(parsed, Conversation)
        thoughts = [b.text for b in parsed.turns[-1].content if isinstance(b, Reasoning)]
        if (name, kind) != ("GPT_OSS", "text-and-call"):  # it has one channel for both
            assert (answer.text, answer.reasoning) == (parsed.answer, "".join(thoughts))


def learned(name: str, value: Block) -> list[str]:
    """Return the learned segments of a record as text."""
    segments = split_turns(TOKENIZERS[name], to_chat(value, "converse"), [tiny.END])
    literal = text_tokenizer(TOKENIZERS[name]).literal
    return [literal.unmark(text) for text, has_loss in segments if has_loss]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("QWEN3", f"<think>\nHmm hmm.\n</think>\n\nIt shines.{tiny.END}"),
        ("QWEN3_THINKING", f"Hmm hmm.\n</think>\n\nIt shines.{tiny.END}"),
        ("DEEPSEEK_R1", f"Hmm hmm.\n</think>\n\nIt shines.{tiny.END}"),
        ("DEEPSEEK_R1_OLD", f"<think>\nHmm hmm.\n</think>\n\nIt shines.{tiny.END}"),
    ],
)
def test_reasoning_is_learned_once_whether_a_field_or_tags_hold_it(name: str, text: str) -> None:
    assert learned(name, RECORDS["thought"]) == [text]
    inline = record(ASK, reply("<think>\nHmm hmm.\n</think>\n\nIt shines."), tools=False)
    assert learned(name, inline) == [text]


@pytest.mark.parametrize("name", ["QWEN3_THINKING", "DEEPSEEK_R1"])
def test_an_answer_without_reasoning_closes_the_thought_that_the_prompt_opens(name: str) -> None:
    plain = record(ASK, reply("It shines."), tools=False)
    assert learned(name, plain) == [f"\n</think>\n\nIt shines.{tiny.END}"]


def test_reasoning_in_a_text_is_kept_where_the_template_knows_none() -> None:
    inline = record(ASK, reply("<think>Hmm.</think>It shines."), tools=False)
    assert learned("QWEN25", inline) == [f"<think>Hmm.</think>It shines.{tiny.END}"]


def test_calls_are_rendered_in_the_form_that_the_template_takes() -> None:
    alone = RECORDS["call-alone"]
    [qwen], [mistral], [gpt] = (learned(name, alone) for name in ("QWEN25", "MISTRAL", "GPT_OSS"))
    assert qwen == (
        '<tool_call>\n{"name": "get_weather", "arguments": {"town": "Bern"}}\n</tool_call>'
        "<|im_end|>"
    )
    assert '"arguments": {"town": "Bern"}, "id": "' in mistral and "call_1" not in mistral
    assert gpt == (
        ' to=functions.get_weather<|channel|>commentary json<|message|>{"town": "Bern"}<|im_end|>'
    )


def test_an_end_mark_inside_a_call_or_its_reasoning_does_not_end_the_turn() -> None:
    value = record(ASK, reply(thought(f"a{tiny.END}b"), call(f"c{tiny.END}d")))
    [text] = learned("QWEN3", value)
    assert text.count(tiny.END) == 3 and text.endswith(f"</tool_call>{tiny.END}")


def test_a_failed_result_says_so_and_a_json_result_is_json() -> None:
    failed = {"toolUseId": "call_1", "content": [{"json": {"k": 1}}], "status": "error"}
    chat = to_chat(record(ASK, reply(call("Bern")), user({"toolResult": failed})), "converse")
    assert chat.messages[-1] == {
        "role": "tool",
        "tool_call_id": "call_1",
        "name": "get_weather",
        "content": 'Error: {"k": 1}',
    }


def test_what_no_template_can_hold_is_refused_by_name() -> None:
    with pytest.raises(TrainerError, match="a text after a tool call in the same turn"):
        learned("QWEN25", record(ASK, reply(call("Bern"), "Wait.")))
    with pytest.raises(TrainerError, match="block of type 'image'"):
        learned("QWEN25", record(user("Look.", {"image": {}}), reply("A cat."), tools=False))
