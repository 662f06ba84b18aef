#!/usr/bin/env bash
# litellm's stream_chunk_builder gives another answer than the same request without a stream: probabilities, refusals.
#
# Packages: litellm 1.110.2, openai 3.57.0.
# Guess: stream_chunk_builder(chunks) is the response that completion(stream=False) gives, as the helper of openai's client
# (chat.completions.stream, which it is compared with here) is; times and counts of tokens apart.
# Behavior: of ten answers of an OpenAI-compatible server, whole and as chunks, openai's helper gives all ten alike, litellm
# five. Without an error it loses logprobs and the refusal (an empty content takes its place), gives the second choice
# the finish_reason of the first (cut off by the length becomes complete), makes "{}" of the empty arguments of a tool
# call, and loses `reasoning`, the key of vLLM and OpenRouter, while `reasoning_content` stays.
# Why it matters: litellm's logs, its caches and its callbacks have the put-together answer of each stream: scores from
# logprobs, counts of refusals and of cut-off answers come out otherwise for the clients that stream.
# Way out: read the chunks themselves, or ask without a stream where such a value counts.
# Seen:
#   openai: 10 of 10 alike
#   litellm: 5 of 10 alike
#     two choices: choices.1.finish_reason
#     logprobs: choices.0.logprobs
#     refusal: choices.0.message.content, choices.0.message.refusal
#     reasoning: choices.0.message.provider_specific_fields
#     a tool without arguments: choices.0.message.tool_calls.0.function.arguments
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet litellm==1.110.2 openai==3.57.0
cd "$folder"
cat > try.py <<'PYTHON'
import http.server
import json
import sys
import threading

import litellm
import openai

HEAD = {"id": "chatcmpl-17", "created": 1790000000, "model": "m"}
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def call(at, arguments):
    return {"index": at, "id": f"call_{at}", "type": "function", "function": {"name": "find", "arguments": arguments}}


def more(at, arguments):
    return {"index": at, "function": {"arguments": arguments}}


def probability(token):
    return {"token": token, "bytes": list(token.encode()), "logprob": -0.25, "top_logprobs": []}


LYON = [{"content": "Ly"}, {"content": "on"}]
# Of each answer its choices, each with its deltas and its finish_reason.
ANSWERS = {
    "text": [(LYON, "stop")],
    "two choices": [(LYON, "stop"), ([{"content": "Par"}], "length")],
    "logprobs": [(LYON, "stop")],
    "refusal": [([{"refusal": "I can"}, {"refusal": "not"}], "stop")],
    "reasoning_content": [([{"reasoning_content": "Think"}, *LYON], "stop")],
    "reasoning": [([{"reasoning": "Think"}, *LYON], "stop")],
    "one tool": [([{"tool_calls": [call(0, "")]}, {"tool_calls": [more(0, '{"a":')]}, {"tool_calls": [more(0, "1}")]}], "tool_calls")],
    "two tools": [([{"tool_calls": [call(0, '{"a":1}')]}, {"tool_calls": [call(1, '{"a":2}')]}], "tool_calls")],
    "a tool without arguments": [([{"tool_calls": [call(0, "")]}], "tool_calls")],
    "text and a tool": [([{"content": "Wait. "}, {"tool_calls": [call(0, '{"a":1}')]}], "tool_calls")],
}


def add(message, delta):
    for key, value in delta.items():
        if key == "tool_calls":
            calls = message.setdefault(key, [])
            for piece in value:
                if piece["index"] == len(calls):
                    calls.append({name: piece[name] for name in ("id", "type")} | {"function": dict(piece["function"])})
                else:
                    calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
        else:
            message[key] = (message.get(key) or "") + value


def whole(name):
    choices = []
    for at, (deltas, finish) in enumerate(ANSWERS[name]):
        message = {"role": "assistant", "content": None}
        for delta in deltas:
            add(message, delta)
        choices.append({"index": at, "message": message, "finish_reason": finish})
        if name == "logprobs":
            choices[-1]["logprobs"] = {"content": [probability(delta["content"]) for delta in deltas]}
    return HEAD | {"object": "chat.completion", "choices": choices, "usage": USAGE}


def chunks(name):
    head = HEAD | {"object": "chat.completion.chunk"}
    for at, (deltas, finish) in enumerate(ANSWERS[name]):
        for delta in [{"role": "assistant"}, *deltas]:
            choice = {"index": at, "delta": delta, "finish_reason": None}
            if name == "logprobs" and "content" in delta:
                choice["logprobs"] = {"content": [probability(delta["content"])]}
            yield head | {"choices": [choice]}
        yield head | {"choices": [{"index": at, "delta": {}, "finish_reason": finish}]}
    yield head | {"choices": [], "usage": USAGE}


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = body["messages"][-1]["content"]
        if body.get("stream"):
            kind, text = "text/event-stream", "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks(name)) + "data: [DONE]\n\n"
        else:
            kind, text = "application/json", json.dumps(whole(name))
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def flat(value, path=""):
    """Return {path: value} of what an answer says, without times and counts of tokens."""
    if isinstance(value, dict):
        items = [(key, item) for key, item in value.items() if key not in ("created", "model", "object", "index", "usage")]
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return {} if value is None else {path: value}
    found = {}
    for key, item in items:
        found |= flat(item, f"{path}.{key}" if path else str(key))
    return found


def shorten(path):
    return ".".join(path.split(".")[:4 if ".message." in path and "tool_calls" not in path else 7 if "message" in path else 3])


def with_openai(name):
    request = {"model": "m", "messages": [{"role": "user", "content": name}]}
    if len(ANSWERS[name]) > 1:
        request["n"] = len(ANSWERS[name])
    one = client.chat.completions.create(**request).model_dump()
    try:
        with client.chat.completions.stream(**request) as stream:
            for _ in stream:
                pass
            return one, stream.get_final_completion().model_dump()
    except openai.LengthFinishReasonError as error:
        return one, error.completion.model_dump()


def with_litellm(name):
    messages = [{"role": "user", "content": name}]
    request = {"model": "openai/m", "api_base": url, "api_key": "k", "messages": messages, "n": len(ANSWERS[name])}
    one = litellm.completion(**request).model_dump()
    stream = list(litellm.completion(**request, stream=True, stream_options={"include_usage": True}))
    return one, litellm.stream_chunk_builder(stream, messages=messages).model_dump()


litellm.suppress_debug_info = True
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1"
client = openai.OpenAI(base_url=url, api_key="k", max_retries=0)
alike, differ = {}, {}
for title, ask in (("openai", with_openai), ("litellm", with_litellm)):
    differ[title] = {}
    for name in ANSWERS:
        one, other = (flat(answer) for answer in ask(name))
        paths = {shorten(path) for path in one.keys() | other.keys() if one.get(path) != other.get(path)}
        if paths:
            differ[title][name] = sorted(paths)
    alike[title] = len(ANSWERS) - len(differ[title])
    print(f"{title}: {alike[title]} of {len(ANSWERS)} alike")
    for name, paths in differ[title].items():
        print(f"  {name}: {', '.join(paths)}")
expected = ["two choices", "logprobs", "refusal", "reasoning", "a tool without arguments"]
same = alike == {"openai": 10, "litellm": 5} and list(differ["litellm"]) == expected
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
LITELLM_LOCAL_MODEL_COST_MAP=True env/bin/python -W ignore try.py 2> log || { tail -30 log >&2; exit 1; }
