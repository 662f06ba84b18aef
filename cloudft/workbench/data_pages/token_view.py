"""Describe the tokens of one record for a page: which are in the loss, special, or cut off."""

from __future__ import annotations

from dataclasses import dataclass

from cloudft.backends.capabilities import SLOW_TOKENIZER
from cloudft.data.formats.record import BadRecord
from cloudft.data.formats.registry import encode_record
from cloudft.data.records import LocatedRecord
from cloudft.errors import CloudftError
from cloudft.jobs.token_preview import Piece, Preview, describe_tokens
from cloudft.workbench.data_pages.choices import DataFile, DataSet
from cloudft.workbench.data_pages.records import ShownRecord
from cloudft.workbench.data_pages.tokenizers import TokenizerKeeper

MAX_TOKENS = 1500
"""Tokens of a sequence that are shown at first; MAX_ALL_TOKENS when all are."""
MAX_ALL_TOKENS = 10_000
WAIT_S = 1.0
"""Seconds that a page waits for a tokenizer that is being loaded."""


@dataclass(frozen=True)
class TokenRow:
    """One sequence. `tokens` are id, text and classes of each; `left` is how many are not shown."""

    title: str
    tokens: list[tuple[int, str, str]]
    count: int
    learned: int
    left: int


@dataclass(frozen=True)
class TokenView:
    """A record as tokens, or why there are none: `is_loading`, `problem`.

    `stand_in` is the model that shows a record which another one is trained on.
    """

    rows: tuple[TokenRow, ...] = ()
    preview: Preview | None = None
    stand_in: str = ""
    is_loading: bool = False
    problem: str = ""
    fix: str = ""
    note: str = SLOW_TOKENIZER


def view_tokens(
    data: DataSet, file: DataFile, shown: ShownRecord, keeper: TokenizerKeeper, *, all_tokens: bool
) -> TokenView:
    """Return the tokens of a record with the tokenizer of the job's trained model."""
    if data.job is None:
        problem = "tokens need a model, and there is no job file here for this kind of data"
        return TokenView(
            problem=problem, fix="start `cloudft ui` in the folder of its cloudft.yaml."
        )
    assert shown.record is not None
    target = data.job.model.formats[data.job.spec.customization_type]
    try:
        line, _ = encode_record(shown.record, target)
        got = keeper.preview(data.job, line, WAIT_S)
    except BadRecord as bad:
        return TokenView(problem=str(bad), fix=bad.fix)
    except CloudftError as error:
        return TokenView(problem=error.message, fix=error.fix or "")
    if got is None:
        return TokenView(is_loading=True)
    facts, reply = got
    located = LocatedRecord(file.name, shown.line, shown.record)
    preview = describe_tokens(data.job, located, facts, reply)
    titles = ("chosen", "rejected") if len(preview["rows"]) > 1 else ("",)
    special = frozenset(facts.get("specialIds", ()))
    limit = MAX_ALL_TOKENS if all_tokens else MAX_TOKENS
    rows = [
        _row(title, pieces, special, preview["cutAt"], limit)
        for title, pieces in zip(titles, preview["rows"], strict=True)
    ]
    return TokenView(tuple(rows), preview, data.stand_in)


def _row(
    title: str, pieces: list[Piece], special: frozenset[int], cut: int | None, limit: int
) -> TokenRow:
    tokens = []
    for number, piece in enumerate(pieces[:limit]):
        is_cut = cut is not None and number >= cut
        classes = ["k"]
        classes += ["learned"] if piece["learned"] and not is_cut else []
        classes += ["special"] if piece["id"] in special else []
        classes += ["cut"] if is_cut else []
        tokens.append((piece["id"], make_visible(piece["text"]), " ".join(classes)))
    learned = sum(piece["learned"] for piece in pieces[:cut])
    return TokenRow(title, tokens, len(pieces), learned, max(0, len(pieces) - limit))


def make_visible(text: str) -> str:
    """Return the text of a token with marks for line ends; a part of a character is a dot."""
    return text.replace("\n", "↵\n").replace("\t", "⇥\t") or "·"
