"""`cloudft chat`: on a terminal and of a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import time
from pathlib import Path

import pytest
from job_records import make_record
from processes import Cli, read_jsonl
from talking_jobs import make_home
from test_terminal import Terminal

from cloudft.backends.local.backend import LocalBackend
from cloudft.errors import TrainerError
from cloudft.inference import (
    CANCELED,
    AnswerDelta,
    AnswerEnd,
    GenerationConfig,
    Prompt,
    SupportsStreaming,
    SupportsTokens,
)
from cloudft.jobs.prompts import build_prompts
from cloudft.storage.home import Home
from cloudft.storage.store import Store


@pytest.fixture(scope="module")
def talking_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("talking"), "talker")


@pytest.fixture
def chat_home(talking_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLOUDFT_HOME", str(talking_home))
    return talking_home


class ChatTerminal(Terminal):
    """A conversation on a terminal."""

    def read(self) -> bool:
        """Add new output; fail instead of waiting for what never comes."""
        assert select.select([self.main], [], [], 60)[0], self.screen
        return super().read()

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def ask(self, text: str, pattern: str) -> str:
        """Type a line, wait for a pattern after it and for the next prompt; return the output."""
        start = len(self.screen)
        self.type(f"{text}\n")
        self.read_until(rf"(?s)\A.{{{start}}}.*{pattern}.*you> \Z")
        return self.screen[start:]

    def interrupt(self) -> None:
        """Press Ctrl-C: the terminal sends SIGINT to the process in front."""
        os.killpg(self.process.pid, signal.SIGINT)

    def interrupt_typing(self) -> None:
        """Press Ctrl-C while a key is waited for.

        Python notices a signal that comes between an echo and that at the next key only (readline,
        CPython 3.11); no person is that quick.
        """
        time.sleep(0.3)
        self.interrupt()


def test_a_conversation_on_a_terminal(chat_home: Path, cli: Cli, tmp_path: Path) -> None:
    del chat_home
    saved = tmp_path / "saved.jsonl"
    terminal = ChatTerminal("chat", "talker", "--max-new-tokens", "16", "-v")
    terminal.read_until("you> ")
    first = terminal.ask("Where is parcel 3?", "tokens/s")
    assert re.search(r"tuned> [^\r\n]+\r\n", first) and "base>" not in first
    assert "base>" in terminal.ask("/base", "base and tuned") + terminal.ask("And 4?", "base: ")
    assert "base>" not in terminal.ask("/base", "only the tuned") + terminal.ask("5?", "tuned: ")
    terminal.ask("/undo", "removed")
    terminal.ask("/system Answer in one word.", "system message is set")
    terminal.ask(f"/save {saved}", r"appended to .*, as messages: prompt-completion can't")
    terminal.ask("/reset", "new conversation")
    terminal.ask(f"/save {saved}", "no answer to save yet")
    terminal.ask("/system", "no system message")
    terminal.ask("Where is parcel 3?", "tokens/s")
    terminal.ask(f"/save {saved}", r"appended to [^,]*\r\n")
    terminal.ask("/temperature warm", "is not a temperature")
    terminal.ask("/temperature 0.5", r"temperature 0\.5")
    terminal.ask("/nothing", "no command /nothing")
    terminal.ask("//dir", "tokens/s")
    assert "/undo" in terminal.ask("/help", "/quit")
    terminal.type("\x04")
    assert terminal.end() == 0
    assert "Traceback" not in terminal.screen
    conversation, pair = read_jsonl(saved)
    roles = [turn["role"] for turn in conversation["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert pair["prompt"] == "Where is parcel 3?" and pair["completion"]
    [record] = saved.read_bytes().splitlines()[1:]
    saved.write_bytes(record + b"\n")
    [prompt] = build_prompts("FINE_TUNING", file=saved)
    assert prompt.reference == pair["completion"]
    generated = cli("generate", "talker", "--prompt", pair["prompt"], "--max-new-tokens", "16")
    assert generated.stdout.strip() == pair["completion"].strip(), "the same model, the same answer"


def test_control_c_stops_the_answer_and_then_the_program(chat_home: Path) -> None:
    del chat_home
    terminal = ChatTerminal("chat", "talker", "--base", "--max-new-tokens", "4000", "-v")
    terminal.read_until("you> ")
    terminal.type("Where is parcel 3?\n")
    terminal.read_until("tuned> .{20}")
    started = time.monotonic()
    terminal.interrupt()
    terminal.read_until(r"tuned: \d+ tokens, .*canceled\s+you> \Z")
    assert time.monotonic() - started < 5
    terminal.type("half a li")
    terminal.read_until("half a li")
    terminal.interrupt_typing()
    terminal.read_until(r"half a li(\^C)?\s+you> \Z")
    terminal.ask("/base", "only the tuned")
    assert "tuned> " in terminal.ask("Still there?", "tuned: ")
    terminal.interrupt_typing()
    assert terminal.end() == 130
    assert "Traceback" not in terminal.screen


def test_the_lines_of_a_pipe_are_questions(chat_home: Path, cli: Cli) -> None:
    del chat_home
    markup = "<b>\u05d0\u05d1</b>"
    lines = f"Where is parcel 3?\n\n/base\n{markup}\n"
    done = cli("chat", "talker", "--max-new-tokens", "8", "-o", "json", input=lines)
    assert done.returncode == 0, done.stderr
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    assert [turn["prompt"] for turn in turns] == ["Where is parcel 3?", "/base", markup]
    assert [turn["turn"] for turn in turns] == [1, 2, 3]
    assert all(set(turn) == {"turn", "prompt", "tuned"} for turn in turns)
    grown = [turn["tuned"]["promptTokens"] for turn in turns]
    assert grown == sorted(set(grown)), "each question comes after the turns before it"
    plain = cli("chat", "talker", "--max-new-tokens", "8", "-q", input="Where is parcel 3?\n")
    assert plain.stdout == turns[0]["tuned"]["text"] + "\n" and plain.stderr == ""


def test_what_does_not_fit_the_context_is_dropped_and_said(chat_home: Path, cli: Cli) -> None:
    del chat_home
    lines = "".join(f"{n} {'parcel ' * 1800}\n" for n in range(3))
    done = cli("chat", "talker", "--max-new-tokens", "4", "-o", "json", input=lines)
    assert done.returncode == 0, done.stderr
    assert "dropped the oldest" in done.stderr and "4,096 tokens" in done.stderr
    too_long = cli("chat", "talker", input="parcel " * 20_000 + "\n")
    assert too_long.returncode != 0
    assert "the model's context is 4096" in too_long.stderr


def test_a_session_streams_what_it_generates_and_stays_usable(chat_home: Path) -> None:
    [job] = (chat_home / "jobs").iterdir()
    prompt, long = (
        Prompt([{"role": "user", "content": text}]) for text in ("Where is it?", "x " * 9000)
    )
    config = GenerationConfig(40, temperature=0.8, seed=3)
    session = LocalBackend(Home(chat_home)).open_session(job.name)
    assert isinstance(session, SupportsStreaming) and isinstance(session, SupportsTokens)
    with contextlib.closing(session):
        whole = list(session.generate([prompt], ["tuned", "base"], config))
        events = list(session.stream(prompt, ["tuned", "base"], config))
        assert [event.answer for event in events if isinstance(event, AnswerEnd)] == whole
        reading = session.stream(prompt, ["base"], GenerationConfig(4000))
        assert isinstance(next(reading), AnswerDelta)
        reading.close()  # type: ignore[attr-defined]  # it is a generator
        with pytest.raises(TrainerError, match="the model's context is 4096"):
            list(session.stream(long, ["base"], config))
        session.cancel()  # too late, or too early: it cancels nothing
        *_, end = session.stream(prompt, ["tuned"], config)
        assert isinstance(end, AnswerEnd) and end.answer.finish_reason != CANCELED
        rated = session.token_probabilities(prompt, end.token_ids, ["tuned", "base"], top=2)
        assert {len(tokens) for tokens in rated.values()} == {end.answer.tokens}
        size = session.describe()
        assert (size.context, size.device) == (4096, "cpu") and size.parameters > 10_000


def test_billed_answers_need_a_yes(home: Path, cli: Cli) -> None:
    store = Store(home / "jobs")
    with store.create(make_record(store, "there-0", backend="bedrock")):
        pass
    refused = cli("chat", "there", input="Where?\n")
    assert refused.returncode == 2
    assert "answers are billed: tuned model:" in refused.stderr and "--yes" in refused.stderr
    assert "USD per 1,000 input tokens" in refused.stderr
