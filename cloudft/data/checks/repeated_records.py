"""Warn of what repeats within a role: the same record again, and a prompt with another answer."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePath

from cloudft.data.checks.record_keys import RecordKeys
from cloudft.data.checks.repeated_keys import Repeats, find_repeats
from cloudft.data.findings import Findings

MAX_LISTED_PAIRS = 3


UNCHECKED_ROLES = ("mix",)


def warn_repeated_records(
    findings: Findings, keys: Mapping[str, RecordKeys], columns: Mapping[str, str]
) -> None:
    """Add a warning for repeated records of the training data, and one a role for other answers.

    `keys` are those of the roles' records. Texts are compared exactly: `data dedupe` takes out
    what is counted here.
    """
    for role in keys:
        if role not in UNCHECKED_ROLES:
            _warn_role(findings, keys[role], role, columns)


def _warn_role(findings: Findings, keys: RecordKeys, role: str, columns: Mapping[str, str]) -> None:
    repeats = find_repeats(keys.prompts, keys.answers)
    if role == "train" and repeats.same.records:
        message = (
            f"{_count(repeats.same, keys)} training records repeat an earlier one"
            f" ({describe_pairs(repeats.same, keys, keys)}): each is trained on as often as it is"
            " there"
        )
        file = keys.locate(repeats.same.records[0])[0]
        fix = f"`{_dedupe_command(file, columns)}` keeps one of each"
        _warn(findings, "DuplicateRecords", message, fix, repeats.same, keys)
    if repeats.differing.records:
        message = (
            f"{_count(repeats.differing, keys)} records have the input of an earlier one and"
            f" another answer ({describe_pairs(repeats.differing, keys, keys)}); all are used"
        )
        fix = "decide which answer is right, and take the other records out; leave it if all are"
        _warn(findings, "DifferentAnswers", message, fix, repeats.differing, keys)


def describe_pairs(repeats: Repeats, keys: RecordKeys, others: RecordKeys) -> str:
    """Return where the first few are: "line 7 and line 2", with the files where these differ."""
    pairs = list(zip(repeats.records, repeats.firsts, strict=True))
    shown = []
    for record, first in pairs[:MAX_LISTED_PAIRS]:
        (file, line), (other_file, other_line) = keys.locate(record), others.locate(first)
        is_one_file = file == other_file
        places = (f"line {line}", f"line {other_line}")
        if not is_one_file:
            places = (f"{file}:{line}", f"{other_file}:{other_line}")
        shown.append(" and ".join(places))
    more = ", ..." if len(pairs) > MAX_LISTED_PAIRS else ""
    return f"{', '.join(shown)}{more}"


def _count(repeats: Repeats, keys: RecordKeys) -> str:
    return f"{len(repeats.records)} of {len(keys)}"


def _warn(
    findings: Findings, code: str, message: str, fix: str, repeats: Repeats, keys: RecordKeys
) -> None:
    file, line = keys.locate(repeats.records[0])
    findings.add(code, message, fix, file=file, line=line, severity="warning")


def _dedupe_command(file: str, columns: Mapping[str, str]) -> str:
    path = PurePath(file)
    out = path.with_name(f"{path.stem}-unique.jsonl")
    options = "".join(f" --column {ours}={shlex.quote(name)}" for ours, name in columns.items())
    return f"cloudft data dedupe {shlex.quote(file)} --out {shlex.quote(str(out))}{options}"
