"""What decides how llama.cpp starts, samples and ends an answer: special tokens and settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from local_backend.data.chat_template import find_stop_tokens

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import GenerationConfig, PreTrainedTokenizerBase

WHOLE_CONTEXT = -1
"""How far back repetitions count: in transformers all tokens, in llama.cpp 64 by default."""


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
        template = template["default"]
    if template:
        writer.add_chat_template(template)
    return notes


def starts_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether llama.cpp shall put the first token before a prompt.

    It does so for prompts from a chat template too, unless the template has written it. A model
    that was tuned on a template without that token would get one that it never saw.
    """
    bos = tokenizer.bos_token
    if bos is None:
        return False
    if tokenizer.chat_template:
        return render_example(tokenizer).startswith(bos)
    ids: list[int] = tokenizer("a")["input_ids"]
    return ids[:1] == [tokenizer.bos_token_id]


def render_example(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a short chat as the template renders it."""
    messages = [{"role": "user", "content": "Hello"}]
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
    return str(tokenizer.apply_chat_template(messages, **options))


def write_sampling(writer: GGUFWriter, generation: GenerationConfig | None) -> None:
    """Write how answers are sampled unless a request says otherwise.

    Every setting is written: where one is missing, llama.cpp takes a default of its own
    (temperature 0.8, top_k 40, top_p 0.95, min_p 0.05), which is not transformers'.
    """
    penalty = getattr(generation, "repetition_penalty", None)
    if penalty:
        writer.add_sampling_penalty_repeat(float(penalty))
        writer.add_sampling_penalty_last_n(WHOLE_CONTEXT)
    if not getattr(generation, "do_sample", False):
        writer.add_sampling_temp(0.0)
        return
    chosen = {
        name: getattr(generation, name, None) for name in ("temperature", "top_k", "top_p", "min_p")
    }
    writer.add_sampling_temp(float(1.0 if chosen["temperature"] is None else chosen["temperature"]))
    writer.add_sampling_top_k(int(50 if chosen["top_k"] is None else chosen["top_k"]))
    writer.add_sampling_top_p(float(1.0 if chosen["top_p"] is None else chosen["top_p"]))
    writer.add_sampling_min_p(float(chosen["min_p"] or 0.0))
