"""Secrets and personal data: found by line, never shown, gone from the copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cloudft.cli.main import cloudft
from cloudft.data.privacy import redact, redacted, scan

PRIVATE = {
    "EMAIL": "anna.berg+x@mail.example.org",
    "CARD": "4111 1111 1111 1111",
    "IBAN": "DE89 3704 0044 0532 0130 00",
    "PHONE": "+49 (30) 1234 5678",
    "AWS_ACCESS_KEY": "AKIA" + "IOSFODNN7EXAMPLE",
    "GITHUB_TOKEN": "ghp_" + "a1B2" * 9,
    "API_KEY": "hf_" + "aB3d" * 9,
    "BASIC_AUTH_CREDENTIALS": "://anna:geheim@",
    "PRIVATE_KEY": "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    "JSON_WEB_TOKEN": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "SLACK_TOKEN": "xoxb-" + "123456789012-abcdefghij",
    "STRIPE_ACCESS_KEY": "sk_live_" + "a1b2c3d4" * 3,
}
HARMLESS = [
    "The order 4111 1111 1111 1112 has not come.",  # no valid card number
    "We met at 10:30 on 2026-11-24 @ the office.",
    "Call 112, or see page 1234567890.",
    "arn:aws:iam::123456789012:role/x and https://example.org/a?b=c",
    "The hash is d41d8cd98f00b204e9800998ecf8427e, version 1.2.3.4-5.",
    "a@b, @anna, anna@, mail@localhost",
]


@pytest.mark.parametrize("kind", PRIVATE)
def test_each_kind_is_found_within_a_sentence(kind: str) -> None:
    text = f"Write to {PRIVATE[kind]} today, please."
    hits = scan(text)
    assert kind in {hit.kind for hit in hits}
    assert PRIVATE[kind] not in redact(text)
    assert redact(text).startswith("Write to") and redact(text).endswith("today, please.")


@pytest.mark.parametrize("text", HARMLESS)
def test_likenesses_are_left_alone(text: str) -> None:
    assert scan(text) == [] and redact(text) == text


PIECES = st.sampled_from([*PRIVATE.values(), " ", "x", "@", "7", ":"]) | st.text(max_size=3)


@given(st.lists(PIECES))
def test_what_is_redacted_has_nothing_left(parts: list[str]) -> None:
    text = "".join(parts)
    assert scan(redact(text)) == []
    if not scan(text):
        assert redact(text) == text


def test_a_json_value_keeps_its_form() -> None:
    value = {"messages": [{"content": "a@example.org", "n": 7, "x": None}], "tags": [True]}
    assert redacted(value) == {
        "messages": [{"content": "<EMAIL>", "n": 7, "x": None}],
        "tags": [True],
    }


def test_the_command_names_lines_shows_nothing_and_writes_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    records = [{"prompt": f"p {kind}", "completion": text} for kind, text in PRIVATE.items()]
    records.insert(1, {"prompt": "nothing", "completion": "here"})
    raw = "".join(json.dumps(record) + "\n" for record in records)
    Path("a.jsonl").write_text(raw)

    def run(*args: str) -> tuple[int, str]:
        done = CliRunner().invoke(cloudft, ["data", "scan", *args], standalone_mode=False)
        assert done.exception is None
        return done.return_value, done.output

    code, said = run("a.jsonl", "--output", "json")
    assert code == 3
    assert {(h["line"], h["field"]) for h in json.loads(said)["hits"]} == {
        (n, "/completion") for n in range(1, len(records) + 1) if n != 2
    }
    code, text = run("a.jsonl")
    assert not any(private in said + text for private in PRIVATE.values())
    assert run("a.jsonl", "--redact", "clean.jsonl")[0] == 0
    assert run("clean.jsonl") == (0, "nothing found\n")
    assert Path("a.jsonl").read_text() == raw
    assert json.loads(Path("clean.jsonl").read_text().splitlines()[1]) == records[1]
