"""Prompts that are kept as test cases."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from job_records import make_record

from cloudft.errors import UsageError
from cloudft.jobs.case_sets import CaseSets
from cloudft.jobs.conversation import Conversation, encode_turns
from cloudft.jobs.prompts import build_prompts
from cloudft.storage.home import Home
from cloudft.storage.jsonl_append import append_line
from cloudft.storage.store import JobRecord, Store

ODD = '</td><b>x</b> "\u05e9\u05dc\u05d5\u05dd" ' + "\u0627" * 100_000


@pytest.fixture
def sets(tmp_path: Path) -> CaseSets:
    return CaseSets(Home(tmp_path / "home"))


@pytest.fixture
def pairs_job(tmp_path: Path) -> JobRecord:
    """A job whose file has pairs of prompt and completion."""
    manifest: dict[str, Any] = {
        "sha256": "0" * 64,
        "files": {},
        "format": "converse",
        "sources": [{"role": "train", "shape": "prompt-completion"}],
    }
    return make_record(Store(tmp_path / "jobs"), "router-0", manifest=manifest)


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_set_is_a_data_file_in_the_job_s_own_format(sets: CaseSets, pairs_job: JobRecord) -> None:
    assert sets.names() == [] and sets.load("cases").cases == ()
    sets.add("cases", pairs_job, "", ask("Where?"), "Here.")
    sets.add("cases", pairs_job, "", ask(ODD), ODD)
    path = sets.path_of("cases")
    assert [sorted(json.loads(line)) for line in path.read_bytes().splitlines()] == [
        ["completion", "prompt"]
    ] * 2
    assert path.stat().st_mode & 0o077 == 0 and path.parent.stat().st_mode & 0o077 == 0
    read = build_prompts("FINE_TUNING", file=path)
    assert [(one.shown, one.reference) for one in read] == [("Where?", "Here."), (ODD, ODD)]
    loaded = sets.load("cases")
    assert [(case.shown, case.expected) for case in loaded.cases] == [
        ("Where?", "Here."),
        (ODD, ODD),
    ]
    assert loaded.without_expected == 0 and sets.names() == ["cases"]


def test_a_case_without_an_expected_answer_is_a_prompt_alone(
    sets: CaseSets, pairs_job: JobRecord
) -> None:
    turns = [*ask("First?"), {"role": "assistant", "content": "Yes."}, *ask("Second?")]
    sets.add("open", pairs_job, "", ask("Where?"), " ")
    sets.add("open", pairs_job, "Be brief.", turns, "")
    plain, long = sets.load("open").cases
    assert json.loads(sets.path_of("open").read_bytes().splitlines()[0]) == {"prompt": "Where?"}
    assert [message["role"] for message in long.prompt.messages] == [
        *("system", "user", "assistant", "user")
    ]
    assert plain.expected is None and long.shown == "Second?"
    assert sets.load("open").without_expected == 2


def test_a_set_keeps_the_format_of_its_first_case(
    sets: CaseSets, pairs_job: JobRecord, tmp_path: Path
) -> None:
    other = make_record(Store(tmp_path / "jobs"), "other-0", manifest={"format": "messages"})
    sets.add("mixed", other, "Be brief.", ask("Where?"), "Here.")
    sets.add("mixed", pairs_job, "", ask("When?"), "Now.")
    lines = [json.loads(line) for line in sets.path_of("mixed").read_bytes().splitlines()]
    assert [sorted(line) for line in lines] == [["messages"], ["messages"]]


def test_damaged_lines_are_shown_and_others_stay_usable(
    sets: CaseSets, pairs_job: JobRecord
) -> None:
    sets.add("cases", pairs_job, "", ask("Where?"), "Here.")
    path = sets.path_of("cases")
    path.write_bytes(b'not json\n{"prompt": 3}\n' + path.read_bytes() + b'{"prompt": "torn')
    sets.add("cases", pairs_job, "", ask("When?"), "Now.")
    cases = sets.load("cases").cases
    assert [bool(case.problem) for case in cases] == [True, True, False, True, False]
    assert "line 2" in cases[1].problem
    sets.remove("cases", cases[2].key)
    assert [case.shown for case in sets.load("cases").cases if not case.problem] == ["When?"]
    with pytest.raises(UsageError, match="removed already"):
        sets.remove("cases", cases[2].key)


@pytest.mark.parametrize("name", ["", "../jobs", ".hidden", "a/b", "a" * 61, "-x"])
def test_a_name_that_is_a_path_is_refused(sets: CaseSets, pairs_job: JobRecord, name: str) -> None:
    with pytest.raises(UsageError, match="can't be the name of a set"):
        sets.add(name, pairs_job, "", ask("Where?"), "Here.")


def test_an_empty_prompt_is_no_case(sets: CaseSets, pairs_job: JobRecord) -> None:
    with pytest.raises(UsageError, match="needs a prompt"):
        sets.add("cases", pairs_job, "", ask("  "), "Here.")
    assert sets.names() == []


def test_lines_of_several_writers_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"torn")
    path.chmod(0o644)

    def write(letter: str) -> None:
        for _ in range(20):
            append_line(path, letter.encode() * 5000)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    first, *lines = path.read_text().splitlines()
    assert first == "torn" and len(lines) == 80
    assert all(line == line[0] * 5000 for line in lines)
    assert path.stat().st_mode & 0o777 == 0o644, "it is a person's file"


def test_a_system_message_is_not_put_into_a_prompt() -> None:
    turns = [*ask("q"), {"role": "assistant", "content": "a"}]
    line, used = encode_turns("s", turns, "prompt-completion", is_raw=False)
    assert used == "messages" and json.loads(line)["messages"][0]["role"] == "system"
    assert encode_turns("", turns, "prompt-completion", is_raw=False)[1] == "prompt-completion"
    assert encode_turns("s", turns, "no such format", is_raw=False)[1] == "messages"


def test_undo_removes_the_last_question_with_its_answer() -> None:
    conversation = Conversation("s")
    assert not conversation.undo()
    for role, text in (("user", "1"), ("assistant", "a"), ("user", "2")):
        conversation.add(role, text)
    assert conversation.undo() and len(conversation.turns) == 2
    with pytest.raises(UsageError, match="no answer to save"):
        Conversation("s").to_line("messages")
    assert conversation.undo() and conversation.turns == []
