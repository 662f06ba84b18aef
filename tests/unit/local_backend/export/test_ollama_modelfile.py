"""Ollama's Modelfile: the same prompts, end tokens and sampling as the folder's model."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import chat_templates
import pytest
import text_templates
import tiny
import tokenizer_kinds
from llama_models import build_merged

from local_backend.export.gguf import write_modelfile
from local_backend.export.gguf.modelfile import make_go_template
from local_backend.export.gguf.turns import START, SYSTEM, Turns, find_turns, join_turns

TEMPLATES = {
    "chatml": tiny.CHATML,
    "deepseek": chat_templates.DEEPSEEK_R1,
    "gemma": text_templates.GEMMA,
    "llama2": text_templates.LLAMA2,
    "llama3": text_templates.LLAMA3,
    "llama3.1": chat_templates.LLAMA31,
    "mistral": text_templates.MISTRAL_TEXT,
    "phi": text_templates.PHI,
    "qwen2.5": chat_templates.QWEN25,
    "qwen3": chat_templates.QWEN3,
    "vicuna": text_templates.VICUNA,
}
SHAPES = ["u", "uau", "su", "suau", "uauauau"]
ROLES = {"s": "system", "u": "user", "a": "assistant"}
CHATML_IN_GO = (
    '{{ $last := "" }}{{ range .Messages }}{{ if eq .Role "system" }}{{ if eq $last "" }}'
    '<|im_start|>system\n{{ end }}{{ .Content }}{{ else if eq .Role "user" }}{{ if eq $last "" }}'
    '<|im_start|>user\n{{ else if eq $last "assistant" }}<|im_end|>\n<|im_start|>user\n'
    '{{ else if eq $last "system" }}<|im_end|>\n<|im_start|>user\n{{ end }}{{ .Content }}'
    '{{ else if eq .Role "assistant" }}{{ if eq $last "user" }}<|im_end|>\n'
    "<|im_start|>assistant\n{{ end }}{{ .Content }}{{ end }}{{ $last = .Role }}{{ end }}"
    '{{ if eq $last "user" }}<|im_end|>\n<|im_start|>assistant\n{{ end }}'
)
RUN_GO = """
package main

import ("encoding/json"; "os"; "text/template")

type Message struct { Role, Content string }

func main() {
    var input struct { Template string; Messages []Message }
    if err := json.NewDecoder(os.Stdin).Decode(&input); err != nil { panic(err) }
    parsed := template.Must(template.New("").Parse(input.Template))
    if err := parsed.Execute(os.Stdout, input); err != nil { panic(err) }
}
"""


def make_chat(shape: str) -> list[dict[str, str]]:
    """Return a chat of these roles, with contents that templates might change."""
    return [
        {"role": ROLES[role], "content": f"What is {at}? <b> 'q' \"x\" {{y}}\nline two"}
        for at, role in enumerate(shape)
    ]


def take_apart(name: str) -> tuple[Any, Turns]:
    """Return what renders a template, without the first token, and its turns."""
    tokenizer = tokenizer_kinds.wrap(tokenizer_kinds.build_llama3(), TEMPLATES[name])

    def render(chat: Any) -> str:
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return str(text).removeprefix(tokenizer_kinds.BOS)

    turns = find_turns(render, None)
    assert turns is not None
    return render, turns


def chats_of(turns: Turns) -> list[list[dict[str, str]]]:
    """Return chats that a template takes."""
    return [make_chat(s) for s in SHAPES if "s" not in s or (START, SYSTEM) in turns]


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_turns_make_the_prompts_of_the_template(name: str) -> None:
    render, turns = take_apart(name)
    for chat in chats_of(turns):
        assert join_turns(turns, chat) == render(chat)
    assert make_go_template(turns)


def test_chatml_in_go() -> None:
    assert make_go_template(take_apart("chatml")[1]) == CHATML_IN_GO


@pytest.mark.skipif(
    shutil.which("go") is None, reason="needs Go, whose language the template is in"
)
@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_go_makes_the_prompts_of_the_template(tmp_path: Path, name: str) -> None:
    render, turns = take_apart(name)
    (tmp_path / "main.go").write_text(RUN_GO, encoding="utf-8")
    for chat in chats_of(turns):
        messages = [{key.title(): value for key, value in message.items()} for message in chat]
        made = subprocess.run(
            ["go", "run", str(tmp_path / "main.go")],
            input=json.dumps({"Template": make_go_template(turns), "Messages": messages}),
            capture_output=True,
            text=True,
            check=True,
        )
        assert made.stdout == render(chat)


def test_template_that_does_more_is_not_translated(tmp_path: Path) -> None:
    for body in (
        "{% for m in messages %}{{ loop.index }}{{ m['content'] | upper }}{% endfor %}",
        "{{ strftime_now('%Y') }}{% for m in messages %}{{ m['content'] }}{% endfor %}",
        "{% for m in messages %}{{ '{{' }}{{ m['role'] }}:{{ m['content'] }}{% endfor %}",
    ):
        build_merged("llama", tmp_path / "m")
        config = tmp_path / "m" / "tokenizer_config.json"
        (tmp_path / "m" / "chat_template.jinja").unlink(missing_ok=True)
        changed = json.loads(config.read_text()) | {"chat_template": body}
        config.write_text(json.dumps(changed), encoding="utf-8")
        text = write_modelfile(tmp_path / "m", "model.gguf")
        assert "TEMPLATE" not in text
        assert "does more than write text between messages" in text
        shutil.rmtree(tmp_path / "m")


def test_greedy_model_with_two_end_tokens(tmp_path: Path) -> None:
    build_merged("llama", tmp_path / "m")
    path = tmp_path / "m" / "generation_config.json"
    changed = json.loads(path.read_text()) | {"do_sample": False, "eos_token_id": [2, 0]}
    path.write_text(json.dumps(changed), encoding="utf-8")
    assert write_modelfile(tmp_path / "m", "model.gguf") == (
        f'FROM ./model.gguf\n\nTEMPLATE """{CHATML_IN_GO}"""\n\n'
        "PARAMETER num_ctx 128\n"
        "PARAMETER repeat_penalty 1\n"
        "PARAMETER temperature 0\n"
        'PARAMETER stop "<|im_end|>"\n'
        'PARAMETER stop "<|endoftext|>"\n'
    )


def test_sampling_model_whose_context_is_long(tmp_path: Path) -> None:
    build_merged("llama", tmp_path / "m", max_position_embeddings=131072)
    path = tmp_path / "m" / "generation_config.json"
    changed = json.loads(path.read_text()) | {
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
        "repetition_penalty": 1.1,
    }
    path.write_text(json.dumps(changed), encoding="utf-8")
    lines = write_modelfile(tmp_path / "m", "model.gguf").splitlines()
    assert lines[-9:-1] == [
        "# Up to 131072; Ollama takes the memory for all of it at once.",
        "PARAMETER num_ctx 8192",
        "PARAMETER repeat_penalty 1.1",
        "PARAMETER temperature 0.6",
        "PARAMETER top_k 50",
        "PARAMETER top_p 0.9",
        "PARAMETER min_p 0",
        "PARAMETER repeat_last_n 131072",
    ]


def test_context_ends_with_a_window_that_llama_cpp_does_not_know(tmp_path: Path) -> None:
    build_merged("phi3", tmp_path / "m")
    assert "PARAMETER num_ctx 8\n" in write_modelfile(tmp_path / "m", "model.gguf")
