"""Staged prompts with the answers of a teacher: a staged folder of its own, as all staged data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from cloudft.data.findings import Findings
from cloudft.data.formats.record import BadRecord
from cloudft.data.formats.registry import encode_record
from cloudft.data.records import read_records
from cloudft.data.sources.source_files import SourceResolver
from cloudft.data.staging.manifest import build_manifest
from cloudft.data.staging.stage import publish_files
from cloudft.data.token_estimate import estimate_tokens
from cloudft.errors import CheckFailed
from cloudft.types import Manifest, StagedFile

FORMAT = "distillation"
Message = Mapping[str, Any]
"""A turn of the format `converse`: role and content blocks."""


def prompt_key(record: Mapping[str, Any]) -> str:
    """Return the digest of a prompt: a canonical record without its answer."""
    content = {
        name: record[name] for name in ("system", "messages", "toolConfig") if name in record
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def is_answered(record: Mapping[str, Any]) -> bool:
    """Return whether a canonical record ends with an answer."""
    return bool(record["messages"][-1]["role"] == "assistant")


@dataclass(frozen=True)
class Unanswered:
    """A staged prompt without an answer, and where it is first: `record 3 of train`."""

    record: Mapping[str, Any]
    place: str


def unanswered_records(folder: Path, manifest: Manifest) -> dict[str, Unanswered]:
    """Return the staged prompts without an answer by their keys, in the order of the files."""
    found: dict[str, Unanswered] = {}
    if manifest.format != FORMAT:
        return found
    for role, file in sorted(manifest.files.items()):
        for number, record in enumerate(_read(folder / file.name), 1):
            if not is_answered(record):
                place = f"record {number} of {role}"
                found.setdefault(prompt_key(record), Unanswered(record, place))
    return found


def read_answers(
    base_dir: Path, paths: Sequence[str], columns: Mapping[str, str]
) -> dict[str, Message]:
    """Return the answers in files of prompts with answers, by the keys of the prompts.

    Of two answers to one prompt the first counts. Raise CheckFailed with every faulty record.
    """
    findings = Findings()
    sources = SourceResolver(base_dir, findings).resolve("distillation.answers", paths, "train")
    answers: dict[str, Message] = {}
    for located in read_records(sources, findings, columns, None, FORMAT):
        try:
            record = orjson.loads(encode_record(located.record, FORMAT)[0])
        except BadRecord:
            continue
        if is_answered(record):
            *prompt, answer = record["messages"]
            answers.setdefault(prompt_key({**record, "messages": prompt}), answer)
    errors = [finding for finding in findings.all() if finding.severity == "error"]
    if errors:
        raise CheckFailed(errors[0].message, errors)
    return answers


def complete(
    folder: Path, manifest: Manifest, answers: Mapping[str, Message], root: Path
) -> tuple[Path, Manifest]:
    """Stage the same records with these answers below `root`; return folder and manifest.

    Records that have an answer keep it; prompts that `answers` lacks stay as they are.
    """

    def write(temporary: Path) -> Manifest:
        files = {
            role: _write(folder / file.name, temporary / file.name, file, answers)
            for role, file in manifest.files.items()
        }
        return build_manifest(
            manifest.customization_type, manifest.format, manifest.seed, files, manifest.sources
        )

    return publish_files(root, write)


def _write(source: Path, to: Path, file: StagedFile, answers: Mapping[str, Message]) -> StagedFile:
    digest, size, added = hashlib.sha256(), 0, 0
    with to.open("wb") as stream:
        for record in _read(source):
            answer = None if is_answered(record) else answers.get(prompt_key(record))
            if answer is not None:
                record = {**record, "messages": [*record["messages"], answer]}
                added += sum(len(block.get("text", "")) for block in answer["content"])
            line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
            digest.update(line)
            size += stream.write(line)
    characters = file.characters + added
    return replace(
        file,
        characters=characters,
        tokens=estimate_tokens(characters),
        sha256=digest.hexdigest(),
        bytes=size,
    )


def _read(path: Path) -> Iterator[dict[str, Any]]:
    lines: Iterable[bytes] = path.read_bytes().splitlines()
    yield from map(orjson.loads, lines)
