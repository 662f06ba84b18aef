"""What a model makes of records: the trainer's own tokens, and texts that people can read."""

from __future__ import annotations

import io
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudft.backends.local import tokenizer
from cloudft.backends.local.tokenizer import tokenize_lines
from cloudft.errors import TrainerError
from local_backend.data.text_tokens import text_tokenizer, tokenize_segments
from local_backend.data.tokenize_records import reply_to

TOKENIZER = tiny.build_tokenizer()
TEXT = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ["Grüße 🎉 日本 👍🏽", " a  b\n\n", f"x{tiny.END}y", "e\u0301\u200b\ufeff"]
)


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_the_texts_of_tokens_are_the_text(text: str) -> None:
    pieces = text_tokenizer(TOKENIZER).explain([(text, True)])
    assert "".join(part for _, part, _ in pieces) == text
    assert [token for token, _, _ in pieces] == TOKENIZER(text, add_special_tokens=False)[
        "input_ids"
    ]


def request(model: Path, **changes: Any) -> dict[str, Any]:
    weights = [{"kind": "folder", "path": str(model)}]
    return {
        "model": {"name": "tiny", "weights": weights},
        "customizationType": "FINE_TUNING",
        "format": "prompt-completion",
        "preview": False,
    } | changes


def replies_to(question: dict[str, Any], *records: dict[str, str]) -> list[dict[str, Any]]:
    lines = io.BytesIO(b"".join(json.dumps(record).encode() + b"\n" for record in records))
    replies: list[dict[str, Any]] = []
    reply_to(question, lines, replies.append)
    return replies


def test_counts_and_previews_are_those_of_training(tiny_model: Path) -> None:
    records = [tiny.pair("Grüße? 🎉", "日本 👍🏽"), *tiny.pairs(3)]
    facts, *counts = replies_to(request(tiny_model), *records)
    assert facts == {
        "context": tiny.CONTEXT,
        "chatTemplate": "the model's own",
        "writesDate": False,
    }
    _, *previews = replies_to(request(tiny_model, preview=True), *records)
    for record, count, preview in zip(records, counts, previews, strict=True):
        pieces = preview["pieces"]
        with_loss = "".join(piece["text"] for piece in pieces if piece["learned"])
        assert with_loss == f"{record['completion']}{tiny.END}"
        assert f"user\n{record['prompt']}{tiny.END}" in "".join(piece["text"] for piece in pieces)
        assert count == {"tokens": len(pieces), "learned": sum(p["learned"] for p in pieces)}


def test_a_preview_is_answered_while_the_process_waits_for_the_next_line(tiny_model: Path) -> None:
    records = tiny.pairs(2)
    facts, *previews = replies_to(request(tiny_model, preview=True), *records)
    session = tokenizer.PreviewProcess(request(tiny_model, preview=True), dict(os.environ))
    try:
        assert session.facts == facts
        assert TOKENIZER.convert_tokens_to_ids(tiny.END) in facts["specialIds"]
        for record, preview in zip(records, previews, strict=True):
            assert session.preview(json.dumps(record).encode()) == preview
        with pytest.raises(TrainerError):
            session.preview(b"no JSON")
    finally:
        session.close()


def test_a_document_ends_with_the_token_that_separates_packed_ones(plain_model: Path) -> None:
    preview = request(
        plain_model, customizationType="CONTINUED_PRE_TRAINING", format="input", preview=True
    )
    _, reply = replies_to(preview, {"input": "Parcel 日 7."})
    [(ids, _)] = tokenize_segments([[("Parcel 日 7.", True)]], TOKENIZER)
    pieces = reply["pieces"]
    assert [piece["id"] for piece in pieces] == [*ids, TOKENIZER.eos_token_id]
    assert "".join(piece["text"] for piece in pieces) == f"Parcel 日 7.{tiny.END}"
    assert [piece["learned"] for piece in pieces] == [False, *[True] * len(ids)]


def test_the_child_takes_any_locale_and_passes_faults_on(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    line = json.dumps(tiny.pair("Grüße", "日本"), ensure_ascii=False).encode() + b"\n"

    def breaking() -> Iterator[bytes]:
        yield line
        raise LookupError("the second record")

    _, *replies = tokenize_lines(request(tiny_model), [line] * 3, environment)
    assert len(replies) == 3 and replies[0] == replies[2]
    monkeypatch.setattr(sys, "executable", preloaded.interpreter_path())
    with pytest.raises(LookupError, match="the second record"):
        list(tokenize_lines(request(tiny_model), breaking(), environment))
    with pytest.raises(TrainerError, match="missing"):
        list(tokenize_lines(request(tmp_path / "none"), [line], environment))


def test_two_children_reply_in_the_order_of_the_records(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "_count_cpus", lambda: 2)
    monkeypatch.setattr(sys, "executable", preloaded.interpreter_path())
    monkeypatch.setattr(tokenizer, "BLOCK_RECORDS", 7)
    records = [tiny.pair("word " * (number % 9), "yes") for number in range(5000)]
    lines = [json.dumps(record).encode() + b"\n" for record in records]
    some = [b"".join(lines[at : at + 3]) for at in range(0, len(lines), 3)]
    started: list[object] = []
    child = tokenizer._Child
    monkeypatch.setattr(
        tokenizer, "_Child", lambda *given: started.append(child(*given)) or started[-1]
    )
    monkeypatch.setattr(tokenizer, "MAX_BLOCKS", 2000)  # a child replies to 1,000 records at once
    alone = list(tokenize_lines(request(tiny_model), some, os.environ))
    assert len(started) == 1
    shared = list(tokenize_lines(request(tiny_model), some, os.environ, next_child_bytes=5000))
    assert len(started) == 3
    assert shared == alone and len(alone) == 1 + len(records)


def test_what_nobody_reads_on_ends_its_processes(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", preloaded.interpreter_path())
    line = json.dumps(tiny.pair("a", "b")).encode() + b"\n"
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield line * 100
        finally:
            closed.set()

    before = threading.active_count()
    replies = tokenize_lines(request(tiny_model), endless(), os.environ, next_child_bytes=1000)
    assert len(list(itertools.islice(replies, 3000))) == 3000
    replies.close()
    assert closed.wait(30)
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before
