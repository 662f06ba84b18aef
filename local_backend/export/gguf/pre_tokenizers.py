"""Which of llama.cpp's pre-tokenizers splits text as a tokenizer does.

A GGUF file has no pre-tokenizer, only the name of one that llama.cpp has built in; with the wrong
name a model reads other tokens than it was tuned with. The names are therefore not taken from the
family: the tokenizer splits a text in which all of them differ, and the pieces decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local_backend.errors import TrainerError
from local_backend.export.gguf.tensors import OTHER_RUNTIME

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

PROBE = (
    "It's HE'S we'Ll don't I'M you'RE they'd camelCase HTTPServer x1 12 123 1234 12345678 3.14 "
    "\u00bd \u2167 \u0663\u0664\u0665 \u4e00\u4e8c\u4e09 \u4f60\u597d\uff0c\u4e16\u754c\u3002 "
    "\u3072\u3089 \u30ab\u30bf \ud55c\uad6d\uc5b4 \u0e44\u0e17\u0e22\u0e14\u0e35 "
    "\u0928\u092e\u0938\u094d\u0924\u0947 e\u0301 nai\u0308ve \u0395\u03bb\u03bb \u00c0\u00c9 "
    "a/b\\c path/to/file.txt foo_bar __init__ -- --- ... !!! ?!\n"
    "\n\n \n  \t\tindented   three  two \r\n\r\n end.\n  - item\n/x\n$5,000.00 #tag @user "
    "<b>&amp;</b> (a)[b]{c} 'quoted' \"x\" `y` \U0001f642\U0001f642 \u279c 1st 2nd\u00a0nbsp"
    "\u3000wide don\u2019t  \n trailing   "
)
"""Every pair of the pre-tokenizers below splits it differently; a test holds that."""

_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"
_SIGNS_WITH_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_LLAMA3 = rf"{_ENGLISH}|{_WORDS}|\p{{N}}{{1,3}}|{_SIGNS}|{_BLANKS}"
_QWEN2 = rf"{_ENGLISH}|{_WORDS}|\p{{N}}|{_SIGNS}|{_BLANKS}"
_QWEN35 = (
    rf"{_ENGLISH}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}|"
    rf" ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_BLANKS}"
)
_TEKKEN = (
    rf"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*|"
    rf"\p{{N}}|{_SIGNS_WITH_SLASH}|{_BLANKS}"
)
_GPT4O = (
    rf"{_START}{_UPPER}*{_LOWER}+{_ENGLISH}?|{_START}{_UPPER}+{_LOWER}*{_ENGLISH}?|"
    rf"\p{{N}}{{1,3}}|{_SIGNS_WITH_SLASH}|{_BLANKS}"
)
_SEED = rf"{_ENGLISH}|{_WORDS}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class KnownPreTokenizer:
    """One that llama.cpp has: its name in a GGUF file, and how it splits.

    `patterns` split one after the other, and what they match is a piece of its own; GPT-2's rules
    follow if `gpt2`. `whole_words`: a piece that is a token needs no merges.
    """

    name: str
    patterns: tuple[str, ...] = ()
    gpt2: bool = False
    whole_words: bool = False

    def build(self) -> PreTokenizer:
        """Return the same as a pre-tokenizer of the tokenizers library."""
        from tokenizers import Regex, pre_tokenizers

        steps: list[Any] = [
            pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in self.patterns
        ]
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self.gpt2))
        built: PreTokenizer = pre_tokenizers.Sequence(steps)
        return built


KNOWN = (
    KnownPreTokenizer("gpt-2", gpt2=True),
    KnownPreTokenizer("smollm", (r"\p{N}",), gpt2=True),
    KnownPreTokenizer("llama-bpe", (_LLAMA3,), whole_words=True),
    KnownPreTokenizer("dbrx", (_LLAMA3,)),
    KnownPreTokenizer("qwen2", (_QWEN2,)),
    KnownPreTokenizer("qwen35", (_QWEN35,)),
    KnownPreTokenizer("tekken", (_TEKKEN,), whole_words=True),
    KnownPreTokenizer("gpt-4o", (_GPT4O,)),
    KnownPreTokenizer("seed-coder", (_SEED,)),
)
"""By measurement with llama.cpp: tests/unit/local_backend/export/test_gguf_tokenizer.py. Of several
names for the same rules, the one that the most readers know."""


def find_pre_tokenizer(pre_tokenizer: PreTokenizer | None, *, whole_words: bool | None) -> str:
    """Return llama.cpp's name for what splits a tokenizer's text.

    `whole_words` is the tokenizer's `ignore_merges`, None where it makes no difference to its
    vocabulary. Raise TrainerError if llama.cpp has no such pre-tokenizer.
    """
    pieces = pre_tokenizer.pre_tokenize_str(PROBE) if pre_tokenizer else None
    same = [known for known in KNOWN if known.build().pre_tokenize_str(PROBE) == pieces]
    fitting = [known for known in same if whole_words in (None, known.whole_words)]
    if not fitting:
        detail = "splits text like none of llama.cpp's"
        if same:
            detail = f"splits text like {same[0].name!r}, but merges the pieces by other rules"
        raise TrainerError(f"The model's pre-tokenizer {detail}.", fix=OTHER_RUNTIME)
    return fitting[0].name
