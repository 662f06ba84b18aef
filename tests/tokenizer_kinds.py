"""Small tokenizers of every kind that language models have, each with the same special tokens."""

from __future__ import annotations

import json
from typing import Any

import tiny

END, BOS = "</s>", "<s>"
SPECIAL = [
    "<unk>",
    BOS,
    END,
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|message|>",
    "<|channel|>",
    "<|User|>",
    "<|Assistant|>",
]
TEXTS = [
    *tiny.SENTENCES,
    "Grüße an alle. [INST] Where is it? [/INST] It is in Lyon. USER: ASSISTANT: Response:\n",
    '{"label": "billing"}',
] * 3
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build_byte_level() -> Any:
    """Return the kind of GPT-2, Qwen and SmolLM: no BOS."""
    from tokenizers import decoders, pre_tokenizers

    return _train(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())


def build_llama3() -> Any:
    """Return the kind of Llama 3: bytes after a pattern, and BOS."""
    return _with_marks(_bytes_after(LLAMA3_SPLIT), f"{BOS} $A")


def build_tekken() -> Any:
    """Return the kind of Mistral's tekken: bytes after a pattern, many control tokens, and BOS."""
    control = [f"<SPECIAL_{number}>" for number in range(300)]
    return _with_marks(_bytes_after(TEKKEN_SPLIT, [*control, "[INST]", "[/INST]"]), f"{BOS} $A")


def build_metaspace(scheme: str = "first") -> Any:
    """Return the kind of Mistral 7B: spaces as U+2581, one before the text, and BOS."""
    from tokenizers import decoders, pre_tokenizers

    splitter = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme), decoders.Fuse()]
    )
    return _with_marks(_train(splitter, decoder), f"{BOS} $A")


def build_metaspace_always() -> Any:
    """Return the kind of T5 and of older Llamas: U+2581 after each special token too, and EOS."""
    from tokenizers import decoders, pre_tokenizers

    splitter = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner = _train(splitter, decoders.Metaspace(prepend_scheme="always"), is_unigram=True)
    return _with_marks(inner, f"$A {END}")


def build_llama2() -> Any:
    """Return the kind of Llama 2: a normalizer writes U+2581, before each stretch too, and BOS."""
    from tokenizers import decoders, normalizers

    normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _with_marks(_train(None, decoder, normalizer=normalizer), f"{BOS} $A")


def build_gemma() -> Any:
    """Return the kind of Gemma: a normalizer writes U+2581, none before the text, and BOS."""
    from tokenizers import decoders, normalizers

    decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    normalizer = normalizers.Replace(" ", "\u2581")
    return _with_marks(_train(None, decoder, normalizer=normalizer), f"{BOS} $A")


def build_wordpiece() -> Any:
    """Return the kind of BERT: lower case, white space is lost, a mark before and after a text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    inner = Tokenizer(models.WordPiece(unk_token="<unk>"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False)
    inner.train_from_iterator(TEXTS, trainer)
    return _with_marks(inner, f"{BOS} $A {END}")


KINDS = {
    "byte-level": build_byte_level,
    "llama3": build_llama3,
    "tekken": build_tekken,
    "metaspace": build_metaspace,
    "metaspace-always": build_metaspace_always,
    "llama2": build_llama2,
    "gemma": build_gemma,
    "wordpiece": build_wordpiece,
}


def wrap(inner: Any, chat_template: str, end: str = END) -> Any:
    """Return transformers' tokenizer of one of these, with a template and an end token."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=end,
        bos_token=BOS,
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def _bytes_after(pattern: str, special: list[str] | None = None) -> Any:
    from tokenizers import Regex, decoders, pre_tokenizers

    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return _train(splitter, decoders.ByteLevel(), special=special)


def _train(
    splitter: Any,
    decoder: Any,
    *,
    normalizer: Any = None,
    special: list[str] | None = None,
    is_unigram: bool = False,
) -> Any:
    """Return a tokenizer of 700 tokens at most, trained on TEXTS; it knows every byte."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    is_bytes = "ByteLevel" in repr(decoder)
    tokens = [*SPECIAL, *(special or [])]
    options: dict[str, Any] = {"vocab_size": 700 + len(tokens), "show_progress": False}
    if is_unigram:
        trainer: Any = trainers.UnigramTrainer(special_tokens=tokens, unk_token="<unk>", **options)
        inner = Tokenizer(models.Unigram())
    else:
        alphabet = pre_tokenizers.ByteLevel.alphabet() if is_bytes else ["\u2581", "\n"]
        bytes_as_tokens = [] if is_bytes else [f"<0x{number:02X}>" for number in range(256)]
        trainer = trainers.BpeTrainer(
            special_tokens=[*tokens, *bytes_as_tokens], initial_alphabet=alphabet, **options
        )
        inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=not is_bytes))
    if splitter is not None:
        inner.pre_tokenizer = splitter
    if normalizer is not None:
        inner.normalizer = normalizer
    inner.decoder = decoder
    inner.train_from_iterator(TEXTS, trainer)
    # Bytes are plain tokens: the trainer takes them as special ones alone.
    content = json.loads(inner.to_str())
    added = content["added_tokens"]
    content["added_tokens"] = [t for t in added if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(content))


def _with_marks(inner: Any, form: str) -> Any:
    from tokenizers import processors

    marks = [(token, inner.token_to_id(token)) for token in (BOS, END) if token in form]
    inner.post_processor = processors.TemplateProcessing(single=form, special_tokens=marks)
    return inner
