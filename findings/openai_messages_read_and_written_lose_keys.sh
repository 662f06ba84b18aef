#!/usr/bin/env bash
# Five libraries that read OpenAI's messages and write them again: none keeps all of their keys.
#
# Versions: langchain-core 1.8.3, langchain-openai 1.7.4, haystack-ai 3.4.1,
# llama-index-llms-openai 0.8.3, mistral-common 1.13.1 (Python 3.10 or later).
#
# A chat for training has, beside role and content, keys that change what is learned: `weight` 0
# (this turn carries no loss; OpenAI's fine-tuning guide), `reasoning_content` (DeepSeek's, vLLM's and
# most chat templates' key), `name`, `tool_calls`. Such files are often passed through one of these
# libraries, to count, filter or trace them.
#
# Guess: a message that is read from a dictionary and written back keeps the keys that OpenAI
# documents, and unknown ones are an error or stay; if a library loses a key, it loses it in every
# message.
#
# Behavior: no error and no warning, and `weight` is lost by all five, so a turn that was context is
# learned; `reasoning_content` is lost or becomes another block by all five. llama-index loses both
# in a message of text alone and keeps both beside tool calls. haystack and mistral-common turn
# `developer` into `system`; llama-index and mistral-common lose `name`.
#
# Way out: keep the file itself as the data, and use such a copy for counting alone.
#
# Seen:
#   langchain-core: 2.weight, 2.reasoning_content, 4.weight, 4.reasoning_content
#   langchain-openai: 2.weight, 2.reasoning_content, 4.weight, 4.reasoning_content
#   haystack: 0.role, 2.weight, 2.reasoning_content, 4.weight, 4.reasoning_content
#   llama-index: 1.name, 4.weight, 4.reasoning_content
#   mistral-common: 0.role, 1.name, 2.weight, 2.reasoning_content, 2.content, 4.weight,
#     4.reasoning_content, 4.content
#   the behavior is as described
#
# Exit status: 0 while the behavior is this, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet langchain-core==1.8.3 langchain-openai==1.7.4 \
  haystack-ai==3.4.1 llama-index-llms-openai==0.8.3 mistral-common==1.13.1
cd "$work"
HAYSTACK_TELEMETRY_ENABLED=False "$work/venv/bin/python" -W ignore - <<'E'
import copy
import sys

from haystack.dataclasses import ChatMessage
from langchain_core.messages import convert_to_messages, convert_to_openai_messages
from langchain_openai.chat_models.base import _convert_dict_to_message, _convert_message_to_dict
from llama_index.llms.openai.utils import from_openai_message_dicts, to_openai_message_dicts
from mistral_common.protocol.instruct.request import ChatCompletionRequest

CALL = {"name": "weather", "arguments": '{"city": "Bern"}'}
CHAT = [
    {"role": "developer", "content": "Answer briefly."},
    {"role": "user", "name": "ann", "content": "Is it raining in Bern?"},
    {
        "role": "assistant",
        "weight": 0,
        "content": "One moment.",
        "reasoning_content": "The weather tool knows.",
        "tool_calls": [{"id": "abcdefghi", "type": "function", "function": CALL}],
    },
    {"role": "tool", "tool_call_id": "abcdefghi", "content": "rain"},
    {"role": "assistant", "weight": 1, "content": "Yes.", "reasoning_content": "It says rain."},
]


LIBRARIES = {
    "langchain-core": lambda chat: convert_to_openai_messages(convert_to_messages(chat)),
    "langchain-openai": lambda chat: [
        _convert_message_to_dict(_convert_dict_to_message(message)) for message in chat
    ],
    "haystack": lambda chat: [
        ChatMessage.from_openai_dict_format(message).to_openai_dict_format() for message in chat
    ],
    "llama-index": lambda chat: to_openai_message_dicts(from_openai_message_dicts(chat)),
    "mistral-common": lambda chat: (
        ChatCompletionRequest.from_openai(messages=chat).to_openai()["messages"]
    ),
}
EXPECTED = {
    "langchain-core": "2.weight, 2.reasoning_content, 4.weight, 4.reasoning_content",
    "langchain-openai": "2.weight, 2.reasoning_content, 4.weight, 4.reasoning_content",
    "haystack": "0.role, 2.weight, 2.reasoning_content, 4.weight, 4.reasoning_content",
    "llama-index": "1.name, 4.weight, 4.reasoning_content",
    "mistral-common": "0.role, 1.name, 2.weight, 2.reasoning_content, 2.content, 4.weight,"
    " 4.reasoning_content, 4.content",
}
seen = {}
for name, convert in LIBRARIES.items():
    changed = []
    for index, (before, after) in enumerate(zip(CHAT, convert(copy.deepcopy(CHAT)), strict=True)):
        order = ("role", "name", "weight", "reasoning_content", "content", "tool_calls", "tool_call_id")
        changed += [f"{index}.{key}" for key in order if key in before and after.get(key) != before[key]]
    seen[name] = ", ".join(changed)
    print(f"{name}: {seen[name]}")
if seen != EXPECTED:
    sys.exit("the behavior has changed")
print("the behavior is as described")
E
