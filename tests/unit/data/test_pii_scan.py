"""Secrets and personal data: found by line, never shown, gone from the copy."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("detect_secrets", reason="the extra `data` is not installed")

from cloudft.cli.main import cloudft
from cloudft.data.analysis import pii_patterns, pii_workers
from cloudft.data.analysis.pii_patterns import Outline, PiiPattern, load_patterns
from cloudft.data.analysis.pii_rows import scan_rows
from cloudft.data.analysis.pii_scan import (
    PiiMatch,
    find_in_texts,
    find_pii,
    iter_strings,
    redact_json,
    redact_text,
)
from cloudft.data.analysis.pii_workers import ScanPool
from cloudft.data.sources.row_reader import Row

PRIVATE = {
    "EMAIL": "anna.berg+x@mail.example.org",
    "CARD": "4111 1111 1111 1111",
    "IBAN": "DE89 3704 0044 0532 0130 00",
    "PHONE": "+49 (30) 1234 5678",
    "AWS_ACCESS_KEY": "AKIA" + "IOSFODNN7EXAMPLE",
    "GITHUB_TOKEN": "ghp_" + "a1B2" * 9,
    "API_KEY": "hf_" + "aB3d" * 9,
    "PRIVATE_KEY": "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    "JSON_WEB_TOKEN": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "SLACK_TOKEN": "xoxb-" + "123456789012-abcdefghij",
    "STRIPE_ACCESS_KEY": "sk_live_" + "a1b2c3d4" * 12,
    "IP": "8.8.4.4",
}
KEY_ID = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # the one of AWS's documentation
PEM = "-----BEGIN PRIVATE KEY-----\n" + "MIIEabcd" * 8 + "\nabcd=="
PGP = "-----BEGIN PGP PRIVATE KEY BLOCK-----\nx-\n-----END PGP PRIVATE KEY BLOCK-----"
CLOSE = [
    ("Order 5 of 2: 4111 1111 1111 1111 12 left", "Order 5 of 2: <CARD> 12 left"),
    ("1234 4111.1111.1111.1111, please", "1234 <CARD>, please"),
    ("Amex 378282246310005 or 3782-822463-10005.", "Amex <CARD> or <CARD>."),
    ("IBAN SE45 5000 0000 0583 9825 7466 NOTE THIS", "IBAN <IBAN> NOTE THIS"),
    ("to gb82 west 1234 5698 7654 32 now", "to <IBAN> now"),
    ("call (212) 555-2368 or 212-555-2369 today", "call <PHONE> or <PHONE> today"),
    ("call +49 30 901820 twelve times", "call <PHONE> twelve times"),
    ("from 2606:4700:4700::1111 at 10:30:15", "from <IP> at 10:30:15"),
    ("**a@example.org** and _b@example.org_", "**<EMAIL>** and <EMAIL>_"),
    ("http://anna:geheim!@h/x", "http://<BASIC_AUTH_CREDENTIALS>@h/x"),
    ("http://anna:p@ss@mail.example.org/x", "http://<BASIC_AUTH_CREDENTIALS>/x"),
    ("redis://:hunter2@cache:6379", "redis://<BASIC_AUTH_CREDENTIALS>@cache:6379"),
    (f"aws_secret_access_key = {KEY_ID}\n", "aws_secret_access_key = <AWS_ACCESS_KEY>\n"),
    (f'"SecretAccessKey": "{KEY_ID}"', '"SecretAccessKey": "<AWS_ACCESS_KEY>"'),
    (
        "//registry.example.org/:_authToken=a1b2c3d4e5",
        "//registry.example.org/:_authToken=<NPM_TOKEN>",
    ),
    (f"OPENAI_API_KEY=sk-proj-{'a1B2' * 12}", "OPENAI_API_KEY=<API_KEY>"),
    (f"key=AIza{'a1B2_' * 7}&q=x", "key=<API_KEY>&q=x"),
    (f"{PEM} cut off", "<PRIVATE_KEY> cut off"),
    (f"{PGP} it was", "<PRIVATE_KEY> it was"),
]
"""Secrets next to other text, or written in another way, and what is left after redaction."""
HARMLESS = [
    "The order 4111 1111 1111 1112 has not come.",  # no valid card number
    "We met at 10:30 on 2026-11-24 @ the office.",
    "Call 112, or see page 1234567890.",
    "arn:aws:iam::123456789012:role/x and https://example.org/a?b=c",
    "The hash is d41d8cd98f00b204e9800998ecf8427e, version 1.2.3.4-5.",
    "a@b, @anna, anna@, mail@localhost",
    "1 + 2 = 3, +1 2 3, 0000 0000 0000 0000 at 1731234567890",
    "It runs at 127.0.0.1 or 10.0.0.7 since version 8.8.8.8.1 (Version 8.8.4.4), 10:30:15.",
    "eyJabc.def is no token, and sk-learn-is-a-library-for-people-who-learn no key.",
    "http://example.org:80/a/b@c",
]
SLOW = ["://a", "sk-a", "eyJ", "eyJ.", "a@", "@a", "a.", "+1 ", "ab12", "//:_authToken=", "xoxb-1-"]
SLOW += ["-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\nAAAAAAAAAAAAAAAA", "1-", "a:"]
SLOW += ["a@example.org ", "0", "0000 ", "0.", "aws", "sk-" + "a" * 12 + " ", ":a", "::", "ab00 "]


@pytest.mark.parametrize("kind", PRIVATE)
def test_each_kind_is_found_within_a_sentence(kind: str) -> None:
    assert redact_text(f"Write to {PRIVATE[kind]} today, please.") == (
        f"Write to <{kind}> today, please."
    )


@pytest.mark.parametrize(("text", "clean"), CLOSE)
def test_nothing_around_it_hides_it_and_nothing_of_it_stays(text: str, clean: str) -> None:
    assert redact_text(text) == clean


@pytest.mark.parametrize("piece", SLOW)
def test_no_text_takes_time_by_its_square(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    start = time.process_time()
    find_pii(text)
    assert time.process_time() - start < 5  # by the square, a minute and more


@pytest.mark.parametrize("text", HARMLESS)
def test_likenesses_are_left_alone(text: str) -> None:
    assert find_pii(text) == [] and redact_text(text) == text


KEY_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
LOOKALIKES = [
    "DE\u0668\u0669 3704 0044 0532 0130 00",  # digits of other scripts count for some kinds
    "+\u0664\u0669 30 901820",
    "4111\u00a01111\u00a01111\u00a01111",
    "\u017fe45 5000 0000 0583 9825 7466",  # a regex without case takes these for s, k and i
    "ie29 a\u0130b\u212a 9311 5212 3456 78",
    'aw\u017f to\u212aen "' + KEY_ID + '"',
    "\u017fecret_acce\u017f\u017f_\u212aey=" + KEY_ID,
]
PREFIXES = [
    *("hf_", "sk-", "sk-ant-", "ghp_", "npm_", "github_pat_", "sk_test_", "rk_live_", "xapp-1-"),
    *("glpat-", "glcbt-ab_", "glagent-", "gloas-", "GR1348941", "pypi-AgEIcHlwaS5vcmc", "sq0csp-"),
    *("AKIA", "A3T7", "AC", "SK", "SG.", "AIza", "eyJ", "AccountKey=", "-us1", "xoxb-1-"),
    *(
        "XOXB-12-a",
        "12345678:",
        "https://hooks.slack.com/services/T1/B2/c",
        "aws_key='",
        "://",
        "@",
    ),
    *("8.8.8.8", "1:2:3:4:5:6:7:8", "2001:4860::", "+1", "+49", "212-555-2368", "(212)555-2368"),
    "a@b.co_c@d.com",
]
PIECES = (
    st.sampled_from([*PRIVATE.values(), *(text for text, _ in CLOSE), *LOOKALIKES, *PREFIXES])
    | st.sampled_from([*HARMLESS, " ", "\n", "\u00a0", "x", "@", "7", ":", "-", "_", ".", "\u00e9"])
    | st.text(KEY_CHARACTERS + "_-/+", min_size=16, max_size=90)
    | st.text(max_size=3)
)


def find_slowly(text: str) -> list[PiiMatch]:
    """Find what is private without hints: every pattern in the whole text."""
    matches = []
    for rank, pattern in enumerate(load_patterns()):
        group = "secret" if "secret" in pattern.regex.groupindex else 0
        for match in pattern.regex.finditer(text):
            if size := pattern.match_length(match[group]):
                matches.append((match.start(group), match.start(group) + size, rank, pattern.kind))
    merged: list[tuple[int, int, int, str]] = []
    for start, end, rank, kind in sorted(matches):
        if merged and start < merged[-1][1]:
            first, last, *before = merged.pop()
            rank, kind = min((before[0], before[1]), (rank, kind))
            start, end = first, max(end, last)
        merged.append((start, end, rank, kind))
    return [PiiMatch(kind, start, end) for start, end, _, kind in merged]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.lists(PIECES).map("".join), max_size=5))
def test_hints_pass_over_nothing(texts: list[str]) -> None:
    found = {index: find_slowly(text) for index, text in enumerate(texts)}
    assert find_in_texts(texts) == {index: matches for index, matches in found.items() if matches}


@pytest.mark.parametrize("pattern", load_patterns(), ids=lambda pattern: pattern.kind)
@settings(max_examples=30, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.data())
def test_the_hint_is_there_wherever_a_pattern_matches(
    pattern: PiiPattern, data: st.DataObject
) -> None:
    text = data.draw(st.from_regex(pattern.regex))
    assert find_in_texts(["x", text, "y"]).get(1, []) == find_slowly(text)
    assert pattern.hint is not None, "a new pattern of detect-secrets: it needs a hint"
    if pattern.regex.search(text) and pattern.match_length is len:
        outline = Outline.of("\n" + text)
        assert pattern.hint.regex.search(outline.view(pattern.hint))


def test_an_outline_shows_all_that_a_regex_takes_for_a_digit_or_a_letter() -> None:
    characters = "".join(map(chr, [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]))
    outline = Outline.of(characters)
    assert len(outline.plain) == len(characters)
    for match in re.finditer(r"\d", characters):
        assert outline.plain[match.start()] == ord("0")
    for match in re.finditer("(?i)[a-z]", characters):
        letter = chr(outline.folded[match.start()])
        assert re.fullmatch(letter, match[0], re.I), f"{match[0]!r} is shown as {letter!r}"


def test_patterns_of_a_later_detect_secrets_are_searched_without_hints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pii_patterns, "DETECT_SECRETS_HINTS", {})
    without = pii_patterns.load_patterns.__wrapped__()
    assert [pattern.regex for pattern in without] == [p.regex for p in load_patterns()]
    assert sum(pattern.hint is None for pattern in without) > 15


def test_a_scan_takes_a_fifth_of_the_time_of_every_pattern_in_every_text() -> None:
    sentence = "On 2026-11-24 at 10:30 we moved my-app_v2 to eu-west-1; see https://example.org/a. "
    texts = [sentence * 20 for _ in range(100)]

    def seconds(work: Callable[[], object]) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    slow = min(seconds(lambda: [find_slowly(text) for text in texts]) for _ in range(2))
    fast = min(seconds(lambda: find_in_texts(texts)) for _ in range(3))
    assert fast < slow / 5


@given(st.lists(st.dictionaries(st.text(max_size=3), PIECES | st.lists(PIECES) | st.integers())))
def test_rows_are_scanned_in_batches_as_each_alone(values: list[dict[str, object]]) -> None:
    rows = [Row(number, value) for number, value in enumerate(values, 1)]
    scanned = list(scan_rows(iter(rows)))
    assert [row for row, _ in scanned] == rows
    for row, matches in scanned:
        assert [tuple(match) for match in matches] == [
            (field, match) for field, text in iter_strings(row.value) for match in find_pii(text)
        ]


@given(st.lists(PIECES))
def test_what_is_redacted_has_nothing_left(parts: list[str]) -> None:
    text = "".join(parts)
    assert find_pii(redact_text(text)) == []
    if not find_pii(text):
        assert redact_text(text) == text


def test_a_json_value_keeps_its_form() -> None:
    value = {"messages": [{"content": "a@example.org", "n": 7, "x": None}], "tags": [True, 1e300]}
    assert redact_json(value | {"card": 4111111111111111, "time": 1731234567890}) == {
        "messages": [{"content": "<EMAIL>", "n": 7, "x": None}],
        "tags": [True, 1e300],
        "card": "<CARD>",
        "time": 1731234567890,
    }


def test_workers_find_the_same_in_order_even_when_they_are_killed() -> None:
    texts = [*PRIVATE.values(), *(text for text, _ in CLOSE), *HARMLESS]
    rows = [Row(number, {"a": text * 30, "b": [text]}) for number, text in enumerate(texts * 20)]
    alone = list(scan_rows(rows))
    with contextlib.closing(ScanPool(2)) as pool:
        assert list(scan_rows(rows, pool)) == alone
        assert len(pool._processes) == 2
        pool._processes[0].kill()
        assert list(scan_rows(rows, pool)) == alone
        assert next(scan_rows([Row(1, {"a": "x a@example.org" * 100_000})], pool))[1]
    assert all(process.returncode is not None for process in pool._processes)


@pytest.mark.parametrize("least", [0, 10**9], ids=["workers", "alone"])
def test_the_command_names_lines_shows_nothing_and_writes_a_copy(
    least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pii_workers, "MIN_BYTES", least)
    monkeypatch.setattr(pii_workers, "count_cores", lambda: 2)
    monkeypatch.chdir(tmp_path)
    records = [{"prompt": f"p {kind}", "completion": text} for kind, text in PRIVATE.items()]
    records.insert(1, {"prompt": "nothing", "completion": "here"})
    raw = "".join(json.dumps(record) + "\n" for record in records)
    Path("a.jsonl").write_text(raw)

    def run(*args: str) -> tuple[int, str]:
        done = CliRunner().invoke(cloudft, ["data", "scan", *args], standalone_mode=False)
        assert done.exception is None
        assert not any(private in done.output for private in PRIVATE.values())
        return done.return_value, done.stdout  # a slow run reports progress on stderr

    code, said = run("a.jsonl", "--output", "json")
    assert code == 3
    assert {(h["line"], h["field"]) for h in json.loads(said)["hits"]} == {
        (n, "/completion") for n in range(1, len(records) + 1) if n != 2
    }
    assert run("a.jsonl")[0] == 3
    assert run("a.jsonl", "--redact", "clean.jsonl")[0] == 0
    assert run("clean.jsonl") == (0, "nothing found\n")
    assert Path("a.jsonl").read_text() == raw
    assert json.loads(Path("clean.jsonl").read_text().splitlines()[1]) == records[1]
