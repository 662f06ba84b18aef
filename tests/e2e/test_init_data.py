"""`cloudft init --data FILE`: a job for one's own data, which runs on this machine as it is."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import yaml
from processes import Cli

CITIES = (*tiny.CITIES, *tiny.CITIES)
PAIRS = [(f"Where is parcel {n}?", CITIES[n % 4]) for n in range(40)]
HANDBOOK = "\n\n".join(
    f"When parcel {n} is late, the desk writes to the carrier." for n in range(60)
)


def write_lines(path: Path, values: list[object]) -> Path:
    """Write one JSON value a line."""
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return path


def pairs_jsonl(folder: Path) -> Path:
    """Write records with the keys prompt and completion."""
    return write_lines(
        folder / "pairs.jsonl", [{"prompt": prompt, "completion": city} for prompt, city in PAIRS]
    )


def chats_jsonl(folder: Path) -> Path:
    """Write conversations as lists of messages."""
    chats: list[object] = [
        {
            "messages": [
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": city},
            ]
        }
        for prompt, city in PAIRS
    ]
    return write_lines(folder / "chats.jsonl", chats)


def faq_csv(folder: Path) -> Path:
    """Write a table with the header question,answer."""
    path = folder / "faq.csv"
    path.write_text("question,answer\n" + "".join(f'"{q}","{a}"\n' for q, a in PAIRS))
    return path


def handbook_md(folder: Path) -> Path:
    """Write a text for continued pre-training."""
    path = folder / "handbook.md"
    path.write_text(f"# Handbook\n\n{HANDBOOK}\n")
    return path


FILES: list[tuple[Callable[[Path], Path], str, str]] = [
    (pairs_jsonl, "FINE_TUNING", "prompt"),
    (chats_jsonl, "FINE_TUNING", "roles user, assistant"),
    (faq_csv, "FINE_TUNING", "'question' and 'answer'"),
    (handbook_md, "CONTINUED_PRE_TRAINING", "a .md file"),
]


@pytest.mark.parametrize(
    ("write", "kind", "evidence"), FILES, ids=lambda v: getattr(v, "__name__", None)
)
def test_the_job_of_ones_own_file_is_checked_and_trained(
    cli: Cli,
    tmp_path: Path,
    tiny_model: Path,
    real_weights: None,
    write: Callable[[Path], Path],
    kind: str,
    evidence: str,
) -> None:
    data = write(tmp_path)
    done = cli("init", "--data", data, tmp_path / "job", "--output", "json")
    assert done.returncode == 0, done.stderr
    choices = {choice["field"]: choice for choice in json.loads(done.stdout)["choices"]}
    assert choices["customization_type"]["value"] == kind
    assert evidence in choices["customization_type"]["reason"] in done.stderr
    written = tmp_path / "job" / "cloudft.yaml"
    spec = yaml.safe_load(written.read_text())
    assert spec["base_model"] == "smollm2-135m" and spec["data"]["train"] == f"../{data.name}"
    assert ("validation" in spec["data"]) == (kind == "FINE_TUNING")
    checked = cli("check", written)
    assert checked.returncode == 0, checked.stdout
    # The same job with a model of a few kilobytes: the real one takes minutes.
    small: tuple[str, ...] = (
        "--set",
        f"base_model={tiny_model}",
        "--set",
        "hyperparameters.epochCount=1",
    )
    if kind == "CONTINUED_PRE_TRAINING":
        small += ("--set", "local.max_length=128")
    ended = cli("submit", written, "--wait", *small, "--output", "json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["status"] == "Completed"
    assert "`cloudft evaluate" in ended.stderr


def test_columns_of_other_names_are_named_by_the_user(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "faq.csv"
    path.write_text("frage,antwort\n" + "".join(f'"{q}","{a}"\n' for q, a in PAIRS))
    refused = cli("init", "--data", path, tmp_path / "job")
    assert refused.returncode == 2
    assert "'frage' (text, 18 characters), 'antwort'" in refused.stderr
    assert "parcel" not in refused.stderr and not (tmp_path / "job").exists()
    [command, _] = re.findall(r"`cloudft (init [^`]*)`", refused.stderr)
    assert "--column prompt=frage --column completion=antwort" in command
    assert cli(*shlex.split(command)).returncode == 0
    assert cli("check", tmp_path / "job" / "cloudft.yaml").returncode == 0


@pytest.mark.parametrize(
    ("name", "content", "code", "says"),
    [
        ("x.pdf", b"%PDF", 3, "files ending in .pdf"),
        ("empty.jsonl", b"", 3, "empty"),
        ("bad.jsonl", b"no json\nat all\n", 3, "bad.jsonl:1"),
        (None, b"", 2, "there is no file"),
    ],
)
def test_what_can_not_be_read_is_refused_with_its_reason(
    cli: Cli, tmp_path: Path, name: str | None, content: bytes, code: int, says: str
) -> None:
    path = tmp_path / (name or "missing.jsonl")
    if name is not None:
        path.write_bytes(content)
    done = cli("init", "--data", path, tmp_path / "job")
    assert done.returncode == code, done.stderr
    assert says in done.stderr and "fix: " in done.stderr
    assert not (tmp_path / "job").exists()


def test_data_to_repair_gets_a_job_whose_commands_repair_it(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "utf16.csv"
    path.write_bytes("prompt,completion\nWhere is it?,Here\n".encode("utf-16"))
    done = cli("init", "--data", path, tmp_path / "job")
    assert done.returncode == 0 and "UTF-16" in done.stderr
    [steps] = re.findall(r"next: cd .* && cloudft (.*); cloudft (.*)", done.stderr)
    assert steps == ("check --fix repaired", "init --data repaired new")
    job, copies = tmp_path / "job" / "cloudft.yaml", tmp_path / "job" / "repaired"
    assert cli("check", job, "--fix", copies).returncode == 3
    assert cli("init", "--data", copies, tmp_path / "new").returncode == 0
    assert cli("check", tmp_path / "new" / "cloudft.yaml").returncode == 0


def test_a_column_that_no_record_has_is_refused(cli: Cli, tmp_path: Path) -> None:
    done = cli("init", "--data", pairs_jsonl(tmp_path), "--column", "prompt=nope", tmp_path / "job")
    assert done.returncode == 2 and "no column 'nope'" in done.stderr
    assert not (tmp_path / "job").exists()


def test_the_type_must_fit_the_data(cli: Cli, tmp_path: Path) -> None:
    kind = ("--type", "CONTINUED_PRE_TRAINING")
    done = cli("init", "--data", pairs_jsonl(tmp_path), *kind, tmp_path / "job")
    assert done.returncode == 2 and "needs text without answers" in done.stderr


def test_records_with_errors_are_counted_and_lead_to_the_repair(cli: Cli, tmp_path: Path) -> None:
    path = pairs_jsonl(tmp_path)
    path.write_text(path.read_text() + "{broken\n")
    done = cli("init", "--data", path, tmp_path / "job")
    assert done.returncode == 0
    assert "1 records have errors" in done.stderr and "check --fix" in done.stderr
    again = cli("init", "--data", path, tmp_path / "job")
    assert again.returncode == 2 and "exists already" in again.stderr
