"""`cloudft label` makes a project, shows its state and writes its labels, as its page says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from label_projects import event, tickets, write_records
from processes import Cli

from cloudft.labeling.project import open_project

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "label.md"


def test_the_commands_of_the_page(cli: Cli, tmp_path: Path, home: Path) -> None:
    write_records(tmp_path / "tickets.jsonl", tickets(6))
    shown = re.findall(r"^\$ cloudft (.*)", PAGE.read_text(), re.MULTILINE)
    create, status, export = (shlex.split(line) for line in shown)
    done = cli(*create, cwd=tmp_path)
    assert "6 records" in done.stdout and "billing, delivery, returns" in done.stdout
    project = open_project(home / "labels", "tickets")
    for person, label in (("ada", "billing"), ("bob", "billing"), ("eve", "returns")):
        project.save_event(person, event(project.records.keys[0], label))
    project.save_event("ada", event(project.records.keys[1], action="reject"))
    text = cli(*status, cwd=tmp_path).stdout
    assert "2 of 6 records decided" in text and "2.0 s (median)" in text and "not known" in text
    found = json.loads(cli(*status, "--output", "json", cwd=tmp_path).stdout)
    assert found["people"]["ada"]["rejected"] == 1 and found["outlook"]["known"] is False
    done = cli(*export, cwd=tmp_path)
    assert "wrote 1 records (prompt-completion)" in done.stdout and "1 rejected" in done.stdout
    [line] = (tmp_path / "labeled.jsonl").read_text().splitlines()
    assert json.loads(line) == {**tickets(1)[0], "completion": "billing"}
    [beside] = (tmp_path / "labeled.provenance.jsonl").read_text().splitlines()
    assert [one["person"] for one in json.loads(beside)["labels"]] == ["ada", "bob", "eve"]
    again = cli(*export, cwd=tmp_path)
    assert again.returncode == 2 and "exists already" in again.stderr
    assert "already" in cli(*create, cwd=tmp_path).stderr
    missing = cli("label", "status", "nothing", cwd=tmp_path)
    assert missing.returncode == 2 and "cloudft label create nothing FILE" in missing.stderr
