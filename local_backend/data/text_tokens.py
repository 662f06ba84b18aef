"""Tokenize rendered text, and find which of its tokens carry loss.

A record is tokenized as one text, as it is at generation. Where a token would reach across the
start of a reply, the text is cut there: what precedes the reply has exactly the tokens that the
prompt has at generation, and the reply those of a text that goes on.

For speed, the text is taken apart before the special tokens that begin turns, which changes no
token (special_tokens.py). So parts that many records share, such as a system message, are tokenized
once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from local_backend.data.literal_text import LiteralTexts, has_marks
from local_backend.data.special_tokens import SpecialTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Segment = tuple[str, bool]
"""A piece of text, and whether its tokens carry loss. In a record, prompt and reply alternate."""
Tokens = tuple[list[int], list[bool]]
"""The token ids of a record, and which of them carry loss."""
Encode = Callable[[str], list[int]]
TOKENIZE_BATCH = 1000
"""Records tokenized in one call: enough to keep the tokenizer's threads busy, in little memory."""
CACHED_TEXTS, CACHED_LENGTH = 4096, 4096
"""How many texts are kept with their tokens, and the characters of the longest."""
PRECEDING_TEXTS = ("\n", "|", ".", "a", "\u0001")
"""What a text may follow to be tokenized as one that goes on."""
ANCHOR = "\ufdd2cloudft\ufdd3"
"""Stands for the special token before a text that has special tokens as text."""


class Part(NamedTuple):
    """Consecutive segments that are tokenized together.

    `texts` are those whose tokens the part is made of: up to the end of each segment. They begin
    with `anchor`, the special token before the part, which is not its own; "" where none is needed.
    """

    anchor: str
    segments: list[Segment]
    texts: list[str]

    def add(self, text: str, *, has_loss: bool) -> None:
        """Append a segment."""
        self.texts.append((self.texts[-1] if self.texts else self.anchor) + text)
        self.segments.append((text, has_loss))


class TokenText(int):
    """A token's id, with the part of the text that it represents."""

    text: str


class TextTokenizer:
    """Tokenizes rendered texts with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._special = SpecialTokens(tokenizer)
        self.literal = LiteralTexts(self._special.ids)
        self._known: dict[str, list[int]] = {}

    def take_apart(self, segments: Sequence[Segment]) -> list[Part]:
        """Return the parts of a record that can be tokenized by themselves."""
        openers = self._special.opener_pattern(str(self._tokenizer.chat_template or ""))
        parts = [Part("", [], [])]
        for number, (text, has_loss) in enumerate(segments):
            first, *turns = openers.split(text) if openers else [text]
            if first:
                parts[-1].add(first, has_loss=has_loss)
            parts += [Part("", [(turn, has_loss)], [turn]) for turn in turns]
            if number % 2 and number + 1 < len(segments):
                end = self._special.find_end(text)  # a reply ends here, with its end mark
                parts += [Part(end, [], [])] if end else []
        return [part for part in parts if part.segments]

    def encode_parts(self, parts: Iterable[Part]) -> dict[str, list[int]]:
        """Return the tokens of all texts that `join` needs for these parts, by text."""
        wanted = {text for part in parts for text in part.texts}
        found = {text: self._known[text] for text in wanted if text in self._known}
        missing = [text for text in wanted if text not in found]
        plain = [text for text in missing if not has_marks(text)]
        encoded = dict(zip(plain, encode_texts(self._tokenizer, plain), strict=True))
        encoded |= {text: self._encode_one(text) for text in missing if text not in encoded}
        for text, ids in encoded.items():
            if len(self._known) >= CACHED_TEXTS:
                break
            if len(text) <= CACHED_LENGTH:
                self._known[text] = ids
        return found | encoded

    def join(self, parts: Iterable[Part], encoded: Mapping[str, list[int]]) -> Tokens:
        """Return the tokens of a record from its parts and the tokens of their texts."""

        def encode(text: str) -> list[int]:
            ids = encoded.get(text)
            return self._encode_one(text) if ids is None else ids

        return _join(parts, encode)

    def encode(self, segments: Sequence[Segment]) -> Tokens:
        """Return the tokens of one record."""
        parts = self.take_apart(segments)
        return self.join(parts, self.encode_parts(parts))

    def explain(self, segments: Sequence[Segment]) -> list[tuple[int, str, bool]]:
        """Return each token of a record: its id, its part of the text, whether it carries loss."""
        ids, mask = _join(self.take_apart(segments), self._explain_text)
        return [
            (int(token), token.text if isinstance(token, TokenText) else "", has_loss)
            for token, has_loss in zip(ids, mask, strict=True)
        ]

    @cached_property
    def own_marks(self) -> tuple[list[int], list[int]]:
        """Return what the tokenizer itself puts before and after a text: BOS and EOS perhaps.

        Chat templates write their own, so these are for texts without a template.
        """
        plain, marked = self._encode_one("a"), self._encode_marked("a")
        for at in range(len(marked) - len(plain) + 1):
            if marked[at : at + len(plain)] == plain:
                return marked[:at], marked[at + len(plain) :]
        return [], []

    def _encode_marked(self, text: str) -> list[int]:
        if self._tokenizer.is_fast:
            return list(self._tokenizer.backend_tokenizer.encode(text).ids)
        return list(self._tokenizer(text)["input_ids"])

    def _encode_one(self, text: str) -> list[int]:
        if has_marks(text):
            return [int(token) for token in self._explain_text(text)]
        return encode_texts(self._tokenizer, [text])[0]

    def _explain_text(self, text: str) -> list[int]:
        """Return the tokens of a text as TokenText. What is marked in it is text."""
        if not has_marks(text):
            return self._explain_stretch(text, backend_of(self._tokenizer))
        tokens: list[int] = []
        for stretch, special in self._special.split(text):
            found = self._explain_literal([self.literal.unmark(stretch)], not tokens)
            if has_marks(stretch) and not self._special.numbers.isdisjoint(found):
                # A unigram model takes the text of a special token as one word, if it is whole.
                found = self._explain_literal(self.literal.unmark_in_two(stretch), not tokens)
            tokens += found
            if special:
                tokens.append(_token_text(self._special.ids[special], special))
        return tokens

    def _explain_literal(self, texts: Sequence[str], is_first: bool) -> list[int]:
        """Return the tokens of texts that follow each other, with special tokens as text."""
        tokens: list[int] = []
        for number, text in enumerate(texts):
            if (is_first and not number) or self._literal_backend is None or ANCHOR in text:
                tokens += self._explain_stretch(text, self._literal_backend, is_literal=True)
            elif text:
                tokens += self._explain_stretch(ANCHOR + text, self._literal_backend)[1:]
        return tokens

    def _explain_stretch(self, text: str, backend: Any, *, is_literal: bool = False) -> list[int]:
        """Return the tokens of a text as TokenText.

        If several tokens make one character, the first has it; the last takes what follows it, such
        as white space that the tokenizer drops. A tokenizer without offsets gives its own texts.
        """
        if backend is None:
            # Written in Python. A rendered text has its special tokens as tokens, a stretch none.
            options = {"add_special_tokens": False, "split_special_tokens": is_literal}
            ids = self._tokenizer(text, **options)["input_ids"]
            texts = [str(part) for part in self._tokenizer.convert_ids_to_tokens(ids)]
            return [_token_text(*pair) for pair in zip(ids, texts, strict=True)]
        encoding = backend.encode(text, add_special_tokens=False)
        ends = [end for _, end in encoding.offsets]
        tokens: list[int] = []
        start = 0
        for token, end in zip(encoding.ids, [*ends[:-1], len(text)] if ends else [], strict=True):
            tokens.append(_token_text(token, text[start:end]))
            start = max(start, end)
        return tokens

    @cached_property
    def _literal_backend(self) -> Any:
        """Return the tokenizer's library with special tokens as text, and the token ANCHOR."""
        backend = backend_of(self._tokenizer)
        if backend is None:
            return None
        from tokenizers import AddedToken, Tokenizer

        literal = Tokenizer.from_str(backend.to_str())
        literal.encode_special_tokens = True
        literal.add_tokens([AddedToken(ANCHOR, special=False, normalized=False)])
        return literal


def backend_of(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return the tokenizer's own `tokenizers.Tokenizer`; None if it is written in Python."""
    return tokenizer.backend_tokenizer if tokenizer.is_fast else None


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Return each text's token ids, without BOS and EOS.

    The library is called without offsets, which take half of its time.
    """
    backend = backend_of(tokenizer)
    if backend is not None:
        encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def _token_text(token: int, text: str) -> int:
    result = TokenText(token)
    result.text = text
    return result


def _join(parts: Iterable[Part], encode: Encode) -> Tokens:
    """Return the tokens of parts that follow each other."""
    ids: list[int] = []
    mask: list[bool] = []
    for part in parts:
        whole = encode(part.texts[-1])
        start = 1 if part.anchor else 0
        for number, text in enumerate(part.texts[:-1]):
            prompt, has_loss = encode(text), part.segments[number][1]
            ids += prompt[start:]
            mask += [has_loss] * (len(prompt) - start)
            start = len(prompt)
            if whole[:start] != prompt:  # a token reaches across the border: cut
                rest = Part("", [], [])
                for following, learned in part.segments[number + 1 :]:
                    rest.add(following, has_loss=learned)
                rest_ids, rest_mask = _join([rest], lambda text: _encode_continuation(text, encode))
                ids += rest_ids
                mask += rest_mask
                break
        else:
            ids += whole[start:]
            mask += [part.segments[-1][1]] * (len(whole) - start)
    return ids, mask


def _encode_continuation(text: str, encode: Encode) -> list[int]:
    """Return the tokens of a text that goes on after another one, without their token for both."""
    for before in PRECEDING_TEXTS:
        whole, alone = encode(before + text), encode(before)
        if whole[: len(alone)] == alone:
            return whole[len(alone) :]
    return encode(text)


@lru_cache(maxsize=8)
def text_tokenizer(tokenizer: PreTrainedTokenizerBase) -> TextTokenizer:
    """Return the TextTokenizer of a tokenizer, the same each time."""
    return TextTokenizer(tokenizer)


def tokenize_segments(
    records: Iterable[Sequence[Segment]], tokenizer: PreTrainedTokenizerBase
) -> Iterator[Tokens]:
    """Yield the tokens of each record.

    While one block of records is tokenized, the next one is rendered.
    """
    tokens = text_tokenizer(tokenizer)
    stream = iter(records)

    def join(pending: _Pending) -> Iterator[Tokens]:
        encoded = pending.encoded.result()
        return (tokens.join(parts, encoded) for parts in pending.records)

    # One worker: rendering templates holds the GIL and the tokenizer (Rust) does not, so the two
    # overlap, and the tokenizer itself uses all cores.
    with ThreadPoolExecutor(1) as pool:
        pending: _Pending | None = None
        while block := [tokens.take_apart(r) for r in itertools.islice(stream, TOKENIZE_BATCH)]:
            encoded = pool.submit(tokens.encode_parts, itertools.chain.from_iterable(block))
            if pending:
                yield from join(pending)
            pending = _Pending(block, encoded)
        if pending:
            yield from join(pending)


@dataclass
class _Pending:
    """A block of records whose texts are being tokenized."""

    records: list[list[Part]]
    encoded: Future[dict[str, list[int]]]
