"""What decides how llama.cpp starts, samples and ends an answer: special tokens and settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from local_backend.data.chat_template import find_stop_tokens

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import GenerationConfig, PreTrainedTokenizerBase

SAMPLERS = "penalties;dry;top_n_sigma;temperature;top_k;top_p;min_p;typ_p;xtc"
"""The order in which transformers applies them. In llama.cpp's own (xllamacpp 2026.10.11549) the
temperature comes last, so that top_p and min_p keep other tokens.
"""


def write_special_tokens(
    writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None
) -> list[str]:
    """Write the special tokens and the chat template. Return what is worth knowing, as sentences.

    llama.cpp ends an answer with three tokens that a file names: the end of the sequence, of the
    turn and of the message.
    """
    notes = []
    ends = find_stop_tokens(tokenizer, generation)
    for add, token in zip(
        (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id),
        ends,
        strict=False,
    ):
        add(token)
    if len(ends) > 3:
        texts = [str(tokenizer.convert_ids_to_tokens(token)) for token in ends[3:]]
        notes.append(f"a GGUF file names three end tokens; not {', '.join(texts)}.")
    for add, token_id in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if isinstance(token_id, int):
            add(token_id)
    writer.add_add_bos_token(starts_with_bos(tokenizer))
    writer.add_add_eos_token(False)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        left_out = sorted(template.keys() - {"default"})
        notes += (
            [f"llama.cpp uses one chat template; not {', '.join(left_out)}."] if left_out else []
        )
    chosen = chosen_template(tokenizer)
    if chosen:
        writer.add_chat_template(chosen)
    return notes


def starts_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether llama.cpp shall put the first token before a prompt.

    It does so for prompts from a chat template too, unless the template has written it. A model
    that was tuned on a template without that token would get one that it never saw; and where the
    tokenizer itself adds none, text without a template gets none.
    """
    bos = tokenizer.bos_token
    ids: list[int] = tokenizer("a")["input_ids"]
    if bos is None or ids[:1] != [tokenizer.bos_token_id]:
        return False
    return not tokenizer.chat_template or render_example(tokenizer).startswith(bos)


def render_example(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a short chat as the template renders it."""
    messages = [{"role": "user", "content": "Hello"}]
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
    return str(tokenizer.apply_chat_template(messages, **options))


def chosen_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the chat template that renders prompts without tools."""
    template: Any = tokenizer.chat_template
    found: str | None = template["default"] if isinstance(template, dict) else template
    return found


def choose_sampling(generation: GenerationConfig | None) -> dict[str, float]:
    """Return how answers are sampled unless a request says otherwise, by llama.cpp's names.

    Every setting is there: where one is missing, llama.cpp takes a default of its own (temperature
    0.8, top_k 40, top_p 0.95, min_p 0.05), which is not transformers'.
    """
    penalty = getattr(generation, "repetition_penalty", None)
    chosen = {"penalty_repeat": float(penalty or 1.0)}
    if not getattr(generation, "do_sample", False):
        return chosen | {"temp": 0.0}
    defaults = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0}
    for name, default in defaults.items():
        value = getattr(generation, name, None)
        chosen[name.removesuffix("erature")] = default if value is None else value
    return chosen


def write_sampling(writer: GGUFWriter, generation: GenerationConfig | None, context: int) -> None:
    """Write how answers are sampled: settings, and the order in which they apply.

    Repetitions count in transformers among all tokens, in llama.cpp among the last 64 unless the
    file says otherwise. `context` says so: -1, once the whole context, is none at all in llama.cpp
    (xllamacpp 2026.10.11549), without a word.
    """
    sampling = choose_sampling(generation)
    for name, value in sampling.items():
        add = getattr(writer, f"add_sampling_{name}")
        add(int(value) if name == "top_k" else float(value))
    writer.add_sampling_sequence(SAMPLERS)
    if sampling["penalty_repeat"] != 1:
        writer.add_sampling_penalty_last_n(context)
