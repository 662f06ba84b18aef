"""llama.cpp reads text from a GGUF file's tokens as transformers does, or the file is refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import tokenizer_kinds
from llama_cpp_runs import run_llama_cpp

from local_backend.errors import TrainerError
from local_backend.export.gguf import write_gguf
from local_backend.export.gguf.pre_tokenizers import KNOWN, PROBE, KnownPreTokenizer
from local_backend.models.load_tokenizer import load_tokenizer

TEXTS = [
    *tiny.SENTENCES[:2],
    "  two  spaces\n\nlines\t tab",
    "It's HE'S 123456 numbers 12 a1b2 don't",
    "<|im_start|>user\nhi<|im_end|>\n",
    "<|im_start|> x <|im_end|> y",
    "Gr\u00fc\u00dfe \u00e9 \u4f60\u597d \U0001f642",
    "a",
    " a",
    PROBE,
]
CHAT = [{"role": "user", "content": "Where is 'it'? <b>\n"}]
SPECIAL_FIRST = [text for text in TEXTS if text.startswith("<|im_start|>")]


def save_model(folder: Path, inner: Any, template: str | None = tiny.CHATML) -> Any:
    """Save a Llama of one layer with a tokenizer, and return the tokenizer as a job loads it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer_kinds.wrap(inner, template or "")
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 5,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_tokenizer(str(folder))[0]


def with_all_merges(inner: Any) -> Any:
    """Return the tokenizer with the merges that transformers makes of a SentencePiece model."""
    from tokenizers import Tokenizer

    content = json.loads(inner.to_str())
    known = content["model"]["vocab"]
    added = {token["content"] for token in content["added_tokens"]}
    content["model"]["merges"] = [
        [token[:at], token[at:]]
        for token in sorted(known, key=known.get)
        if token not in added and not token.startswith("<0x")
        for at in range(1, len(token))
        if token[:at] in known and token[at:] in known
    ]
    return Tokenizer.from_str(json.dumps(content))


@pytest.mark.parametrize(
    ("kind", "template", "added"),
    [
        ("byte-level", "<s>" + tiny.CHATML, False),
        ("llama3", "<s>" + tiny.CHATML, True),
        ("llama3", tiny.CHATML, False),
        ("llama3", "{{ bos_token }}" + tiny.CHATML, True),
    ],
)
def test_first_token_is_there_once(
    tmp_path: Path, kind: str, template: str, *, added: bool
) -> None:
    tokenizer = save_model(tmp_path / "m", tokenizer_kinds.KINDS[kind](), template)
    write_gguf(tmp_path / "m", tmp_path / "m.gguf", "f16")
    run = run_llama_cpp(tmp_path / "m.gguf", chats=[CHAT], complete_chats=True)
    prompt = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    ours = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert run["prompt_lengths"] == [len(ours)]
    assert run["rendered"] == [prompt.removeprefix("<s>") if added else prompt]


def assert_same_tokens(folder: Path, tokenizer: Any, texts: list[str]) -> str:
    """Assert that llama.cpp gives the tokens and the prompt. Return the pre-tokenizer's name."""
    summary = write_gguf(folder, folder.with_suffix(".gguf"), "f16")
    run = run_llama_cpp(folder.with_suffix(".gguf"), texts=texts, chats=[CHAT])
    ours = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert run["tokens"] == ours
    prompt = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert run["rendered"] == [prompt]
    return summary["preTokenizer"]


@pytest.mark.parametrize("kind", ["byte-level", "gemma", "llama2", "llama3", "tekken"])
def test_tokens_and_prompts_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    inner = tokenizer_kinds.KINDS[kind]()
    if kind in ("gemma", "llama2"):
        inner = with_all_merges(inner)
    tokenizer = save_model(tmp_path / "m", inner)
    name = assert_same_tokens(tmp_path / "m", tokenizer, TEXTS)
    expected = {"byte-level": "gpt-2", "llama3": "llama-bpe", "tekken": "tekken"}
    assert name == expected.get(kind, "llama")


def test_blank_before_the_first_word_is_not_put_after_a_special_token(tmp_path: Path) -> None:
    inner = with_all_merges(tokenizer_kinds.build_metaspace())
    tokenizer = save_model(tmp_path / "m", inner)
    assert_same_tokens(tmp_path / "m", tokenizer, SPECIAL_FIRST)
    plain = save_model(tmp_path / "p", inner, "### {{ messages[0]['content'] }}\n### Response:\n")
    assert_same_tokens(tmp_path / "p", plain, [t for t in TEXTS if t[0] not in " <"])


@pytest.mark.parametrize("known", sorted(KNOWN, key=lambda known: known.name))
def test_each_pre_tokenizer_is_found_and_splits_so(
    tmp_path: Path, known: KnownPreTokenizer
) -> None:
    from tokenizers import decoders

    inner = tokenizer_kinds._train(known.build(), decoders.ByteLevel())
    tokenizer = save_model(tmp_path / "m", inner)
    name = assert_same_tokens(tmp_path / "m", tokenizer, TEXTS)
    assert name == ("llama-bpe" if known.name == "dbrx" else known.name)


def test_probe_separates_all_pre_tokenizers() -> None:
    for one, other in itertools.combinations(KNOWN, 2):
        same = one.build().pre_tokenize_str(PROBE) == other.build().pre_tokenize_str(PROBE)
        assert not same or one.whole_words != other.whole_words


def test_merges_that_do_not_make_every_token_decide_between_two_names(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    content = json.loads(tokenizer_kinds.build_llama3().to_str())
    long = "parcelnever"
    content["model"]["vocab"][long] = max(content["model"]["vocab"].values()) + 1
    for ignore_merges, name in ((True, "llama-bpe"), (False, "dbrx")):
        content["model"]["ignore_merges"] = ignore_merges
        folder = tmp_path / name
        tokenizer = save_model(folder, Tokenizer.from_str(json.dumps(content)))
        assert assert_same_tokens(folder, tokenizer, [*TEXTS, long]) == name


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("llama2", "merges are not those of SentencePiece"),
        ("metaspace-always", "type Unigram"),
        ("wordpiece", "type WordPiece"),
    ],
)
def test_other_tokenizers_are_refused(tmp_path: Path, kind: str, named: str) -> None:
    save_model(tmp_path / "m", tokenizer_kinds.KINDS[kind]())
    with pytest.raises(TrainerError, match=named):
        write_gguf(tmp_path / "m", tmp_path / "m.gguf", "f16")


def make_stripping(keep: set[str]) -> Any:
    """Return a tokenizer whose special tokens take the blanks after them, but for some."""
    from tokenizers import Tokenizer

    inner = tokenizer_kinds.build_llama3()
    inner.add_special_tokens(["<|endoftext|>"])
    content = json.loads(inner.to_str())
    for token in content["added_tokens"]:
        token["rstrip"] = token["content"] not in keep
    return Tokenizer.from_str(json.dumps(content))


def test_blanks_after_special_tokens_are_taken_as_in_phi3(tmp_path: Path) -> None:
    tokenizer = save_model(tmp_path / "m", make_stripping({"<unk>", "<s>", "<|endoftext|>"}))
    assert_same_tokens(tmp_path / "m", tokenizer, [*SPECIAL_FIRST, "<|im_start|>a<|im_end|> \n b"])
    plain = save_model(tmp_path / "Phi-3-tuned", tokenizer_kinds.build_llama3())
    assert_same_tokens(tmp_path / "Phi-3-tuned", plain, SPECIAL_FIRST)
    save_model(tmp_path / "other", make_stripping({"<s>", "</s>"}))
    with pytest.raises(TrainerError, match="take the blanks around them"):
        write_gguf(tmp_path / "other", tmp_path / "other.gguf", "f16")


def test_unknown_pre_tokenizer_is_refused_not_guessed(tmp_path: Path) -> None:
    from tokenizers import Regex, decoders, pre_tokenizers

    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}{2}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    save_model(tmp_path / "m", tokenizer_kinds._train(splitter, decoders.ByteLevel()))
    with pytest.raises(TrainerError, match="splits text like none"):
        write_gguf(tmp_path / "m", tmp_path / "m.gguf", "f16")
