"""Talk to a job's models: on a terminal, or for the lines of a pipe."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import click

from cloudft.cli import chat_commands
from cloudft.cli.errors import strip_terminal_controls
from cloudft.cli.options import Console
from cloudft.errors import CloudftError
from cloudft.inference import (
    Answer,
    AnswerDelta,
    AnswerEnd,
    StreamEvent,
    SupportsStreaming,
    SupportsTokens,
    stream_or_generate,
)

if TYPE_CHECKING:
    from cloudft.inference import GenerationConfig, InferenceSession
    from cloudft.jobs.conversation import Conversation

PROMPT, CONTINUED = "you> ", "...> "
TUNED, BASE = "tuned", "base"


class Chat:
    """One conversation. The tuned model's answers are its turns; the base reads the same turns."""

    def __init__(
        self,
        session: InferenceSession,
        conversation: Conversation,
        decoding: GenerationConfig,
        console: Console,
        *,
        format_name: str,
    ) -> None:
        self.session, self.conversation, self.decoding = session, conversation, decoding
        self.console, self.format_name = console, format_name
        self.with_base = False
        self._context = session.describe().context if isinstance(session, SupportsTokens) else None
        self._shows_labels = False
        self._turn = 0

    def note(self, text: str) -> None:
        """Print a line about the conversation, which is no part of it."""
        self.console.note(strip_terminal_controls(text))

    def run_lines(self, lines: Iterable[str]) -> int:
        """Answer each line that is not blank; no line is a command. Raise CloudftError."""
        for line in lines:
            if line.strip():
                self.answer(line)
        return 0

    def run_terminal(self) -> int:
        """Answer what is typed until Ctrl-D or /quit.

        Raise KeyboardInterrupt for Ctrl-C at an empty prompt.
        """
        self._shows_labels = True
        while True:
            line = _read_line(to_stderr=self.console.is_json or not sys.stdout.isatty())
            if line is None:
                return 0
            if not line.strip():
                continue
            try:
                if line.startswith("/") and not line.startswith("//"):
                    if not chat_commands.run_chat_command(self, line.strip()):
                        return 0
                else:
                    self.answer(line.removeprefix("/") if line.startswith("//") else line)
            except CloudftError as error:
                chat_commands.report_problem(self, error)

    def answer(self, text: str) -> None:
        """Answer one question, and keep it with its answer as turns. Raise CloudftError.

        A question that could not be answered is no turn.
        """
        conversation = self.conversation
        conversation.add("user", text)
        try:
            self._drop_oldest()
            answers = self._stream_answers()
        except BaseException:
            conversation.undo()
            raise
        if TUNED not in answers:  # stopped before it began
            conversation.undo()
            return
        conversation.add("assistant", answers[TUNED].text)
        self._turn += 1
        if self.console.is_json:
            from cloudft.cli.output import json_line

            click.echo(json_line({"turn": self._turn, "prompt": text, **answers}))

    def _drop_oldest(self) -> None:
        if self._context is None or not isinstance(self.session, SupportsTokens):
            return
        room = self.decoding.max_new_tokens
        dropped = self.conversation.drop_oldest(self.session, self._context, room)
        if dropped:
            self.note(
                f"dropped the oldest {dropped} question(s) with their answers: the model's context"
                f" has {self._context:,} tokens"
            )

    def _stream_answers(self) -> dict[str, Answer]:
        variants = [TUNED, BASE] if self.with_base else [TUNED]
        prompt, answers = self.conversation.to_prompt(), {}
        printer = AnswerPrinter(self.console, with_labels=self._shows_labels or self.with_base)
        with _stopped_by_interrupt(self.session) as is_stopped:
            for event in stream_or_generate(self.session, prompt, variants, self.decoding):
                printer.show(event)
                if isinstance(event, AnswerEnd):
                    answers[event.answer.variant] = event.answer
                elif is_stopped() and isinstance(self.session, SupportsStreaming):
                    self.session.cancel()
        return answers


class AnswerPrinter:
    """Prints the parts of answers as they come; nothing with --output json."""

    def __init__(self, console: Console, *, with_labels: bool) -> None:
        self._console, self._with_labels = console, with_labels
        self._variant = ""
        self._is_thinking = False
        self._started = self._first = time.monotonic()

    def show(self, event: StreamEvent) -> None:
        """Print a part of an answer, or its end."""
        variant = event.variant if isinstance(event, AnswerDelta) else event.answer.variant
        if variant != self._variant:
            self._begin(variant)
        if isinstance(event, AnswerDelta):
            self._show_delta(event)
        else:
            self._end(event.answer)

    def _begin(self, variant: str) -> None:
        self._started = self._first or time.monotonic()
        self._variant, self._first = variant, 0.0
        if self._with_labels:
            self._write(click.style(f"{variant}> ", bold=True))

    def _show_delta(self, delta: AnswerDelta) -> None:
        self._first = self._first or time.monotonic()
        if delta.reasoning:
            self._is_thinking = True
            self._write(click.style(_printable(delta.reasoning), dim=True))
        if delta.text:
            if self._is_thinking:
                self._write("\n")
            self._is_thinking = False
            self._write(_printable(delta.text))

    def _end(self, answer: Answer) -> None:
        self._write("\n")
        self._is_thinking = False
        if answer.finish_reason == "length":
            self._console.debug(f"cut at {answer.tokens} tokens; --max-new-tokens sets the limit")
        now = time.monotonic()
        first = self._first or now
        seconds = max(now - self._started, 1e-9)
        self._console.debug(
            f"{answer.variant}: {answer.tokens} tokens, {answer.tokens / seconds:.1f} tokens/s,"
            f" the first after {first - self._started:.2f} s, {answer.finish_reason}"
        )
        self._first = now

    def _write(self, text: str) -> None:
        if not self._console.is_json:
            click.echo(text, nl=False)
            sys.stdout.flush()


def _printable(text: str) -> str:
    """Return a text as it is for a file, and without control characters for a terminal."""
    return strip_terminal_controls(text) if sys.stdout.isatty() else text


@contextlib.contextmanager
def _stopped_by_interrupt(session: InferenceSession) -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C stop the answer within the block, and a second one interrupt the program.

    Yield what returns whether it was pressed. A session that can't stop is interrupted at once.
    """
    presses: list[int] = []
    if not isinstance(session, SupportsStreaming):
        yield lambda: False
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        if presses:
            raise KeyboardInterrupt
        presses.append(1)
        # In a thread: this one may be in the middle of writing to the model's process.
        threading.Thread(target=session.cancel, daemon=True).start()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: bool(presses)
    finally:
        signal.signal(signal.SIGINT, before)


def _read_line(*, to_stderr: bool) -> str | None:
    """Return what was typed; None at its end (Ctrl-D).

    Ctrl-C empties a line with text. Raise KeyboardInterrupt at an empty one.
    """
    import readline

    lines: list[str] = []
    while True:
        prompt = CONTINUED if lines else PROMPT
        try:
            if to_stderr:
                click.echo(prompt, nl=False, err=True)
                prompt = ""
            line = input(prompt)
        except EOFError:
            click.echo(err=True)
            return None
        except KeyboardInterrupt:
            click.echo(err=True)
            if not lines and not readline.get_line_buffer():
                raise
            lines = []
            continue
        if not line.endswith("\\"):
            return "\n".join([*lines, line])
        lines.append(line[:-1])


def read_piped_lines() -> Iterator[str]:
    """Yield the lines of standard input. Raise UsageError for one that is not UTF-8."""
    from cloudft.errors import UsageError

    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"line {number} of standard input is not UTF-8", fix="convert it to UTF-8 first."
            ) from error
