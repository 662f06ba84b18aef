"""No command prints a traceback, whatever its arguments are. All in this process, without AWS."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from cli_commands import COMMAND_PATHS, GROUPS, find_command

from cloudft import doctor
from cloudft.__main__ import main as start
from cloudft.cli import errors as failures
from cloudft.cli import param_types, streams
from cloudft.cli.commands import endpoint, serve
from cloudft.cli.main import cloudft
from cloudft.errors import CloudftError
from cloudft.workbench import server as workbench_server

CODES = {0, 1, 2, 3, 4, 5, 6, 124, 130}
"""Of the contract."""
ALL = [(), *[(group,) for group in GROUPS], *COMMAND_PATHS]
ARBITRARY_VALUES = {
    "empty": "",
    "a word": "nonsense",
    "bytes": "\udcff\udcfe\udc80",
    "nul": "a\0b",
    "long": "x" * 5000,
    "huge": "9" * 400,
    "nan": "nan",
    "not finite": "-inf",
    "beyond": "1e12",
    "negative": "-1",
    "a template": "{}[]%s{0}$(x)",
    "an escape": "\x1b[2J",
    "an option": "--output",
    "a bad address": "http://[",
}

SLOW = {("infra", "synth")}
SHARED = {"output", "profile", "region", "endpoint_url", "quiet"}
OPTION_VALUES = ["bytes", "nul", "long", "huge", "nan", "a template", "a bad address"]


@dataclass(frozen=True)
class CallResult:
    """Exit code and output of a call."""

    code: int
    raw: bytes
    errors: bytes

    @property
    def out(self) -> str:
        return self.raw.decode("utf-8", "replace")

    @property
    def err(self) -> str:
        return self.errors.decode("utf-8", "replace")


Call = Callable[..., CallResult]


def fake_probe() -> dict[str, Any]:
    """Replace the process that imports torch, which takes two seconds."""
    return dict.fromkeys(("device", "dtype", "threads", "memoryBytes")) | {"gpus": []}


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    """Return a function that calls the command line in an empty folder, without a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setattr(endpoint, "_run_server", lambda *_: None)
    monkeypatch.setattr(serve, "_serve", lambda *_: 0)
    monkeypatch.setattr(workbench_server, "serve_workbench", lambda *_: None)
    monkeypatch.setattr(doctor, "probe_devices", fake_probe)
    environ = dict(os.environ)

    def now(*words: str, encoding: str = "utf-8") -> CallResult:
        os.environ.clear()  # options set AWS's variables for their process
        os.environ.update(environ)
        out = io.TextIOWrapper(io.BytesIO(), encoding, write_through=True)
        err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["cloudft", *words])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            streams.accept_any_text()
            code = failures.run_command(cloudft)
        return CallResult(code, *[bytes(stream.buffer.getvalue()) for stream in (out, err)])  # type: ignore[attr-defined]

    yield now
    os.environ.clear()
    os.environ.update(environ)


def name(words: tuple[str, ...]) -> str:
    return " ".join(words) or "cloudft"


def assert_reported(result: CallResult, words: list[str]) -> None:
    """Assert that there is no traceback, no internal error, a known exit code, and a message."""
    shown = [word[:40] for word in words], result.err[-400:]
    assert result.code in CODES, shown
    assert "Traceback" not in result.out + result.err, shown
    assert "internal error" not in result.err, shown
    messages = ("error: ", "interrupted", "warning: can't read ")
    assert result.code == 0 or any(message in result.err for message in messages), shown
    assert len(result.err) < 6000, "a long word is not thrown back whole"
    assert "\x1b" not in result.err, "nor can it move the cursor"


def one_json_error(result: CallResult) -> None:
    error = json.loads(result.out)["error"]
    assert error.keys() >= {"code", "message", "file", "line", "field", "fix"}
    assert error["message"].split("\n")[0][:50] in result.err or "\\x" in result.err


def required(words: tuple[str, ...]) -> list[str]:
    """Return the command with its required arguments."""
    arguments = list(words)
    for param in find_command(words).params:
        if isinstance(param, click.Argument) and param.required:
            arguments += ["no-such-thing"] * max(param.nargs, 1)
        elif isinstance(param, click.Option) and param.required:
            kind = param.type
            choice = kind.choices[0] if isinstance(kind, click.Choice) else "x"
            arguments += [param.opts[0], "0.5" if isinstance(kind, click.FloatRange) else choice]
    return arguments


@pytest.mark.parametrize("words", ALL, ids=name)
def test_no_command_ends_in_a_traceback(call: Call, words: tuple[str, ...]) -> None:
    command = find_command(words)
    bare = call(*words)
    assert_reported(bare, [*words])
    if isinstance(command, click.Group):
        assert (bare.code, bare.err) == (0, "") and bare.out.startswith("Usage: cloudft")

    for option in ("--help", "-h"):
        helped = call(*words, option)
        assert (helped.code, helped.err) == (0, "") and helped.out.startswith("Usage: cloudft")

    for text in ARBITRARY_VALUES.values():
        for more in ([text], [text] * 3, [f"--{text}"], [f"-{text}"]):
            assert_reported(call(*words, *more), [*words, *more])


@pytest.mark.parametrize("words", ALL, ids=name)
def test_an_error_is_one_json_object_wherever_it_is_requested(
    call: Call, words: tuple[str, ...]
) -> None:
    wrong = ["--no-such-option", "\udcff"]
    for json_flag in (
        ["--output", "json"],
        ["--output=json"],
        ["-o", "json"],
        ["-ojson"],
        ["-qojson"],
    ):
        for line in (
            [*json_flag, *words, *wrong],
            [*words, *json_flag, *wrong],
            [*words, *wrong, *json_flag],
        ):
            result = call(*line)
            assert_reported(result, line)
            assert result.code == 2
            one_json_error(result)
    text = call(*words, "--output", "json", *wrong, "--output", "text")
    assert (text.code, text.out) == (2, ""), "the last one counts"


@pytest.mark.parametrize("words", COMMAND_PATHS, ids=name)
def test_no_option_takes_nonsense_for_a_fault_of_cloudft(
    call: Call, words: tuple[str, ...]
) -> None:
    arguments = required(words)
    for param in find_command(words).params:
        if not isinstance(param, click.Option) or param.count:
            continue
        if words in SLOW and param.name in SHARED:
            continue
        if param.is_flag:
            assert_reported(call(*arguments, param.opts[-1]), [*arguments, param.opts[-1]])
            continue
        for kind in OPTION_VALUES:
            text = ARBITRARY_VALUES[kind]
            line = [*arguments, param.opts[-1], text]
            assert_reported(call(*line), line)


@pytest.mark.parametrize("words", COMMAND_PATHS, ids=name)
def test_every_number_has_a_range_that_is_stated_and_checked(
    call: Call, words: tuple[str, ...]
) -> None:
    for param in find_command(words).params:
        if isinstance(param, click.Option) and (param.is_flag or param.count):
            continue
        where = f"{name(words)} {param.name}"
        kind = param.type
        assert not isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)) or (
            isinstance(kind, (click.IntRange, click.FloatRange))
        ), f"{where} takes any number"
        if not isinstance(kind, (click.IntRange, click.FloatRange)):
            continue
        assert kind.min is not None and kind.max is not None, f"{where} is open at one end"
        if isinstance(kind, click.FloatRange):
            assert isinstance(kind, param_types.FiniteRange), f"{where} takes nan"
        option = param.opts[-1]
        assert str(kind.max) in call(*words, "--help").out.replace("\n", "").replace(" ", "")
        for text in ("nan", "inf", "-inf", "1e400", "1e12", "-1e12", "9" * 400):
            refused = call(*required(words), option, text)
            assert refused.code == 2, (where, text)
            assert f"Invalid value for '{option}'" in refused.err


def raise_on_call(error: BaseException) -> click.Command:
    @click.command("broken")
    def broken() -> None:
        raise error

    return broken


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyError("x"), 1, "error: internal error: KeyError: 'x' (cloudft "),
        (RecursionError("deep"), 1, "error: internal error: RecursionError: deep"),
        (BrokenPipeError(32, "Broken pipe"), 1, "error: internal error: BrokenPipeError"),
        (OSError(36, "File name too long", "y" * 900), 1, "yyy: File name too long"),
        (CloudftError("no", fix="yes."), 1, "error: no\n  fix: yes."),
        (KeyboardInterrupt(), 130, "interrupted"),
        (EOFError(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_is_raised_becomes_a_message(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["cloudft"])
    assert failures.run_command(raise_on_call(error)) == code
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err and captured.out == ""


def test_the_traceback_of_a_fault_of_ours_is_printed_with_v(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command("broken")
    @click.option("-v", count=True)
    @click.option("-o")
    def broken(v: int, o: str) -> None:
        raise ZeroDivisionError(v, o)

    for flags in (["-v"], ["-vv"], ["-vojson"]):
        monkeypatch.setattr(sys, "argv", ["cloudft", *flags])
        assert failures.run_command(broken) == 1
        captured = capsys.readouterr()
        assert "Traceback" in captured.err and "ZeroDivisionError" in captured.err
    assert json.loads(captured.out)["error"]["code"] == "Internal"


def test_control_c_during_the_imports_ends_it_as_later(monkeypatch: pytest.MonkeyPatch) -> None:
    class Importing:
        def __getattr__(self, _: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "cloudft.cli.main", Importing())
    with pytest.raises(SystemExit) as ended:
        start()
    assert ended.value.code == 130


SCHEMA = [sys.executable, "-m", "cloudft", "schema"]


def test_a_reader_that_went_away_ends_it_as_it_ends_ls() -> None:
    with subprocess.Popen(SCHEMA, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_an_output_that_is_full_is_reported_and_one_that_is_closed_is_not_written() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(SCHEMA, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "error: can't write the output: No space left on device\n",
    )
    shell = ["bash", "-c", '"$@" >&- <&-', "bash", *SCHEMA]
    closed = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False)
    assert (closed.returncode, closed.stderr) == (0, "")


def test_a_name_that_is_no_text_is_printed_as_it_is(call: Call, tmp_path: Path) -> None:
    result = call("init", "caf\udce9")
    assert result.code == 0
    assert b"caf\xe9/cloudft.yaml\n" in result.raw, "as `ls` prints it"
    result = call("init", "th\udce9", "--output", "json")
    assert json.loads(result.out)["written"][0] == "th\ufffd/cloudft.yaml"
    result = call("init", "t\u00e9\U0001f375", "--output", "json", encoding="latin-1")
    assert (
        json.loads(result.raw.decode("latin-1"))["written"][0] == "t\u00e9\U0001f375/cloudft.yaml"
    )
