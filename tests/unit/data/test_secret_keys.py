"""Keys in texts: their kind and line are named, the keys never; what looks like one is none."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any

import pytest

from cloudft.data.checks import secret_keys
from cloudft.data.checks.check import check_data
from cloudft.spec.model import DataSpec
from cloudft.types import Finding

CHANCE = random.Random(5)


def some(count: int, letters: str = string.ascii_letters + string.digits) -> str:
    return "".join(CHANCE.choices(letters, k=count))


CAPITALS = string.ascii_uppercase + string.digits
# Made up here, so that no scanner of repositories takes them for secrets.
SECRETS = {
    "AKIA" + some(16, CAPITALS): "AWS access key",
    "AKIA" + some(16, string.ascii_uppercase): "AWS access key",
    f'secret_access_key": "{some(40)}"': "AWS access key",
    f"AWS_SECRET_ACCESS_KEY={some(40)}": "AWS access key",
    "ghp_" + some(36): "GitHub token",
    "github_pat_" + some(40): "GitHub token",
    "glpat-" + some(20): "GitLab token",
    f"xoxb-{some(11, string.digits)}-{some(24)}": "Slack token",
    "npm_" + some(36): "package registry token",
    "sk-" + some(48): "API key",
    "sk-ant-api03-" + some(60): "API key",
    "hf_" + some(34): "API key",
    "AIza" + some(35): "API key",
    "sk_live_" + some(24): "API key",
    f"SG.{some(22)}.{some(43)}": "API key",
    f"-----BEGIN RSA PRIVATE KEY-----\n{some(64)}\n{some(64)}\n": "private key",
}


def check(folder: Path, records: list[dict[str, Any]]) -> list[Finding]:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    report = check_data(DataSpec(train=(str(path),)), format="messages", base_dir=folder)
    return [finding for finding in report.findings if finding.severity != "note"]


def pairs(count: int) -> list[dict[str, Any]]:
    words = "Some sentences about nothing of importance, counterintuitively_long in between. "
    return [{"prompt": f"{n} {words * 9}", "completion": words} for n in range(count)]


def as_chat(record: dict[str, Any]) -> dict[str, Any]:
    """Return a chat that is read singly: plain ones come in blocks."""
    answer = {"role": "assistant", "content": record["completion"], "weight": 1}
    return {"messages": [{"role": "user", "content": record["prompt"]}, answer]}


@pytest.mark.parametrize("others", [0, 300])
@pytest.mark.parametrize("make", [dict, as_chat])
@pytest.mark.parametrize("before", ["", "line\n", "https://host/?key=", '{"a": "'])
def test_a_secret_is_named_by_kind_and_line_alone(
    tmp_path: Path, before: str, make: Any, others: int
) -> None:
    records = pairs(others)
    for secret in SECRETS:
        records.append({"prompt": f"Use {before}{secret}, please.", "completion": "Done."})
    [finding] = check(tmp_path, list(map(make, records)))
    assert (finding.code, finding.severity) == ("SecretsInTexts", "warning")
    assert finding.line == others + 1
    assert finding.message.startswith(f"{len(SECRETS)} records have what looks like a secret")
    assert all(kind in finding.message for kind in SECRETS.values())
    for secret in SECRETS:
        assert not any(part in str(finding) for part in secret.split() if len(part) > 12)


def test_what_is_no_secret(tmp_path: Path) -> None:
    texts = [
        "The access key AKIAIOSFODNN7EXAMPLE is of the documentation.",
        "task-oriented-dialogue-systems-and-what-2024-brought-to-them-all",
        "CitationGeneratedContent and max_results_per_page_of_the_list",
        "https://example.com/a/rather/long/path/to/a/page?with=parameters&and=2",
        some(80),
        "sk-learn-has-no-such-long-name-without-any-digit-in-it",
    ]
    records = [{"prompt": f"{n} {text}", "completion": "x"} for n, text in enumerate(texts)]
    assert check(tmp_path, [*records, *pairs(300)]) == []
    assert check(tmp_path, records) == []


def test_a_file_is_searched_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = pairs(300)
    records[2]["prompt"], records[299]["prompt"] = (f"{n} ghp_{some(36)}" for n in range(2))
    [finding] = check(tmp_path, records)
    assert "2 records have what looks like a secret (lines 3, 300)" in finding.message
    monkeypatch.setattr(secret_keys, "MAX_SCANNED", 100_000)
    assert "1 record has" in check(tmp_path, records)[0].message
