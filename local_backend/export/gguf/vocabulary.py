"""A tokenizer as llama.cpp reads it: tokens, their kinds, merges or scores."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local_backend.errors import TrainerError
from local_backend.export.gguf.answers import render_example
from local_backend.export.gguf.pre_tokenizers import find_pre_tokenizer
from local_backend.export.gguf.tensors import OTHER_RUNTIME

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedTokenizerBase

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Kinds of tokens, by gguf's TokenType."""
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_KEEP_BLANKS_IN_PHI3 = {"<unk>", "<s>", "<|endoftext|>"}
SPACE = "▁"
"""What a tokenizer of SentencePiece's kind has for a blank."""


@dataclass
class Vocabulary:
    """The tokens of a model by id, as many as its embedding has rows."""

    tokens: list[str]
    kinds: list[int]

    @classmethod
    def read(cls, inner: dict[str, Any], rows: int) -> Vocabulary:
        """Take them from tokenizer.json. Raise TrainerError if the embedding has fewer rows."""
        vocabulary = inner["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: pairs of token and score
            vocabulary = {token: at for at, (token, _) in enumerate(vocabulary)}
        by_id = {number: token for token, number in vocabulary.items()}
        kinds = dict.fromkeys(by_id, NORMAL)
        for added in inner.get("added_tokens", []):
            by_id[added["id"]] = added["content"]
            kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
        if max(by_id) >= rows:
            raise TrainerError(
                f"The tokenizer has {max(by_id) + 1} tokens, the model's embedding {rows} rows.",
                fix="train with a model whose embedding was resized to its tokenizer.",
            )
        used = set(by_id.values())
        tokens = []
        for at in range(rows):
            name = f"[PAD{at}]"
            while name in used and at not in by_id:
                name = f"[{name}]"
            tokens.append(by_id.get(at, name))
        return cls(tokens, [kinds.get(at, UNUSED) for at in range(rows)])


def write_vocabulary(writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, rows: int) -> str:
    """Write the tokens of a tokenizer. Return llama.cpp's name for its kind.

    Raise TrainerError for one that llama.cpp would not read text with as transformers does.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise TrainerError("The model's tokenizer has no tokenizer.json.", fix=OTHER_RUNTIME)
    inner: dict[str, Any] = json.loads(backend.to_str())
    vocabulary = Vocabulary.read(inner, rows)
    kind = inner["model"]["type"]
    if kind == "BPE" and inner["model"].get("byte_fallback"):
        name = _write_sentencepiece(writer, inner, vocabulary, tokenizer)
    elif kind == "BPE":
        name = _write_byte_level(writer, backend, inner, vocabulary)
    else:
        raise TrainerError(
            f"The model's tokenizer is of type {kind}, which is not written to GGUF.",
            fix=OTHER_RUNTIME,
        )
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    return name


def name_model(name: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a file's name for its model, by which llama.cpp knows that blanks are taken.

    No GGUF file says of a token that it takes the blanks after it. In a model named `phi-3` or
    `phi3`, all special tokens do but three, and it has to have those. Raise TrainerError for
    another choice of tokens, and for tokens that are whole words alone.
    """
    added = tokenizer.added_tokens_decoder.values()
    whole_words = [token.content for token in added if token.single_word]
    if whole_words:
        raise TrainerError(
            f"The token {whole_words[0]!r} is read as a word of its own alone (single_word), but in"
            " llama.cpp within words too.",
            fix=OTHER_RUNTIME,
        )
    texts, stripping = {t.content for t in added}, {t.content for t in added if t.rstrip}
    as_phi3 = stripping == texts - _KEEP_BLANKS_IN_PHI3 and {"</s>", *_KEEP_BLANKS_IN_PHI3} <= texts
    if any(token.lstrip for token in added) or (stripping and not as_phi3):
        raise TrainerError(
            "Special tokens of the tokenizer take the blanks around them, but not in llama.cpp.",
            fix=OTHER_RUNTIME,
        )
    return f"phi-3 {name}" if stripping else re.sub(r"(?i)phi-?3", "Phi_3", name)


def _write_byte_level(
    writer: GGUFWriter, backend: Any, inner: dict[str, Any], vocabulary: Vocabulary
) -> str:
    model = inner["model"]
    whole_words: bool | None = bool(model.get("ignore_merges"))
    if _every_token_is_merged(backend, model):
        whole_words = None
    name = find_pre_tokenizer(backend.pre_tokenizer, whole_words=whole_words)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_merges([" ".join(_pair(merge)) for merge in model["merges"]])
    return name


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _every_token_is_merged(backend: Any, model: dict[str, Any]) -> bool:
    """Return whether the merges alone make every token out of its own text."""
    from tokenizers.models import BPE

    merges = [_pair(merge) for merge in model["merges"]]
    alone = BPE(vocab=model["vocab"], merges=merges, ignore_merges=False)
    special = {token.content for token in backend.get_added_tokens_decoder().values()}
    return all(
        [found.id for found in alone.tokenize(token)] == [number]
        for token, number in model["vocab"].items()
        if token not in special
    )


def _write_sentencepiece(
    writer: GGUFWriter,
    inner: dict[str, Any],
    vocabulary: Vocabulary,
    tokenizer: PreTrainedTokenizerBase,
) -> str:
    model = inner["model"]
    scores = _scores_of_merges(model)
    for at, token in enumerate(vocabulary.tokens):
        if vocabulary.kinds[at] == NORMAL and _BYTE_TOKEN.fullmatch(token):
            vocabulary.kinds[at] = BYTE
        elif token == model.get("unk_token"):
            vocabulary.kinds[at] = UNKNOWN
        elif vocabulary.kinds[at] == USER_DEFINED:
            vocabulary.tokens[at] = token.replace(SPACE, " ")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_scores(
        [
            scores.get(token, 0.0) if kind == NORMAL else 0.0
            for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
        ]
    )
    writer.add_add_space_prefix(_prepends_space(inner, tokenizer))
    return "llama"


def _scores_of_merges(model: dict[str, Any]) -> dict[str, float]:
    """Return a score for each token, in the order in which the merges make them.

    llama.cpp merges the two neighbors whose union is the token of the highest score. That is the
    same only if every such pair is among the merges, and those of one token stand together. Raise
    TrainerError otherwise.
    """
    scores: dict[str, float] = {}
    pairs = set()
    last = ""
    for merge in model["merges"]:
        left, right = _pair(merge)
        pairs.add((left, right))
        token = left + right
        if token != last and token in scores:
            raise _other_merges_error(token)
        scores.setdefault(token, -float(len(scores)))
        last = token
    known = model["vocab"]
    for token in known:
        parts = [(token[:at], token[at:]) for at in range(1, len(token))]
        missing = any(a in known and b in known and (a, b) not in pairs for a, b in parts)
        if missing and not _BYTE_TOKEN.fullmatch(token):
            raise _other_merges_error(token)
    lowest = -float(len(scores))
    return {token: scores.get(token, lowest) for token in known}


def _other_merges_error(token: str) -> TrainerError:
    return TrainerError(
        f"The tokenizer's merges are not those of SentencePiece: llama.cpp would make {token!r} of"
        " other parts.",
        fix=OTHER_RUNTIME,
    )


def _prepends_space(inner: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a blank is put before a text, which llama.cpp does after special tokens too.

    Where transformers puts one before the first word of a text alone, prompts decide: a blank is
    right for those that begin with a word, and for those that begin with a special token it is not.
    """
    for step in (inner.get("normalizer"), inner.get("pre_tokenizer")):
        for part in (step or {}).get("normalizers", (step or {}).get("pretokenizers", [step])):
            if part and part["type"] == "Prepend" and part["prepend"] == SPACE:
                return True
            if part and part["type"] == "Metaspace" and part["prepend_scheme"] != "never":
                return part["prepend_scheme"] == "always" or not _prompts_begin_special(tokenizer)
    return False


def _prompts_begin_special(tokenizer: PreTrainedTokenizerBase) -> bool:
    if not tokenizer.chat_template:
        return False
    ids = tokenizer(render_example(tokenizer), add_special_tokens=False)["input_ids"]
    return ids[0] in tokenizer.get_added_vocab().values()
