"""Ollama's Modelfile for a GGUF file: its template, and how it answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_backend.data.chat_template import find_stop_tokens
from local_backend.data.template_date import writes_date
from local_backend.export.gguf.answers import (
    choose_sampling,
    chosen_template,
    starts_with_bos,
)
from local_backend.export.gguf.families import GGUF_FAMILIES
from local_backend.export.gguf.file import read_config, read_generation_config
from local_backend.export.gguf.settings import right_context
from local_backend.export.gguf.turns import (
    ASSISTANT,
    END,
    START,
    SYSTEM,
    USER,
    Chat,
    Turns,
    find_turns,
    keeps_blanks,
)
from local_backend.models.load_tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

LARGEST_CONTEXT = 8192
"""What is set of a longer context: Ollama takes the memory for all of it at once."""
NO_TEMPLATE = """\
# The model's chat template does more than write text between messages, so it is not translated
# into Ollama's language. Ollama then takes a template of its own that looks like the one in the
# GGUF file, or none. Compare a prompt with `cloudft generate` before you trust its answers.
"""


def write_modelfile(folder: Path, gguf_name: str) -> str:
    """Return the text of the Modelfile beside `gguf_name`, the GGUF file of the model in `folder`.

    It says what Ollama does not take from the file: the template in Ollama's language where that
    makes the same prompts, every end token, and the sampling. Ollama itself has not been run on it.
    """
    tokenizer = load_tokenizer(str(folder))[0]
    generation = read_generation_config(folder)
    config = read_config(folder)
    context, _ = right_context(config, GGUF_FAMILIES[str(config.model_type)])
    lines = [f"FROM ./{gguf_name}", ""]
    lines += [*_template_lines(tokenizer), ""]
    if context > LARGEST_CONTEXT:
        lines.append(f"# Up to {context}; Ollama takes the memory for all of it at once.")
    lines.append(f"PARAMETER num_ctx {min(context, LARGEST_CONTEXT)}")
    lines += list(_parameters(tokenizer, generation, context))
    return "\n".join(lines) + "\n"


def _template_lines(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    chosen = chosen_template(tokenizer)
    if not chosen or writes_date(chosen):
        yield NO_TEMPLATE.rstrip()
        return
    render = partial(_render, tokenizer, chosen)
    # Ollama puts the first token before a prompt if the GGUF file says so.
    bos = tokenizer.bos_token if starts_with_bos(tokenizer) else None
    turns = find_turns(render, bos)
    template = make_go_template(turns) if turns else None
    if turns is None or template is None:
        yield NO_TEMPLATE.rstrip()
        return
    if (START, SYSTEM) not in turns:
        yield "# The model's template takes no system message: one that is sent is left out."
    if not keeps_blanks(render, turns, bos):
        yield "# The model's template removes blanks around a message, this one keeps them."
    yield f'TEMPLATE """{template}"""'


def _render(tokenizer: PreTrainedTokenizerBase, template: str, chat: Chat) -> str:
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
    messages = [dict(message) for message in chat]
    return str(tokenizer.apply_chat_template(messages, chat_template=template, **options))


def make_go_template(turns: Turns) -> str | None:
    """Return the template in Go's language; None if a text in it can't be written there."""
    if any("{{" in text or '"""' in text for text in turns.values()):
        return None
    messages = {}
    for role in (SYSTEM, USER, ASSISTANT):
        before = {last: text for (last, after), text in turns.items() if after == role}
        if before:
            messages[role] = _choose("$last", before) + "{{ .Content }}"
    return (
        '{{ $last := "" }}{{ range .Messages }}'
        + _choose(".Role", messages)
        + "{{ $last = .Role }}{{ end }}"
        + _choose("$last", {USER: turns[USER, END]})
    )


def _choose(value: str, texts: Mapping[str, str]) -> str:
    """Return what writes the text that belongs to a value."""
    if len(set(texts.values())) == 1 and len(texts) > 1:
        return next(iter(texts.values()))
    branches = [f'if eq {value} "{name}" }}}}{text}' for name, text in texts.items()]
    return "{{ " + "{{ else ".join(branches) + "{{ end }}"


def _parameters(
    tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None, context: int
) -> Iterator[str]:
    """Yield the lines of sampling and end tokens. Ollama's defaults are not transformers'."""
    sampling = choose_sampling(generation)
    names = {"penalty_repeat": "repeat_penalty", "temp": "temperature"}
    for name, value in sampling.items():
        yield f"PARAMETER {names.get(name, name)} {value:g}"
    if sampling["penalty_repeat"] != 1:
        yield f"PARAMETER repeat_last_n {context}"
    for token in find_stop_tokens(tokenizer, generation):
        text = str(tokenizer.convert_ids_to_tokens(token))
        yield f"PARAMETER stop {json.dumps(text, ensure_ascii=False)}"
