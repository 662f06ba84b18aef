"""Runtimes as processes of their own: the protocol, and that they answer as transformers does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from processes import is_running, wait_until

from local_backend.errors import TrainerError
from local_backend.export.engine_client import MODULES, PROGRAM, EngineProcess, EngineRefused
from local_backend.export.engines import run

MESSAGES = [{"role": "user", "content": "Where is the parcel for Lyon?"}]


def test_every_name_of_a_runtime_has_its_file() -> None:
    assert set(MODULES.values()) == set(run.RUNTIMES)
    for name in run.RUNTIMES:
        assert PROGRAM.with_name(f"{name}.py").is_file()


def test_the_files_need_nothing_of_ours() -> None:
    """Any interpreter runs them by their path."""
    for path in PROGRAM.parent.glob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        ours = [
            at for at, line in enumerate(lines) if line.strip().startswith("from local_backend")
        ]
        assert all(lines[at - 1] == "if TYPE_CHECKING:" for at in ours), path.name


def test_a_model_answers_in_a_process_of_its_own(tiny_model: Path) -> None:
    engine = run.load_engine("transformers", tiny_model, tiny_model)
    prompt = engine.render({"messages": MESSAGES})
    with EngineProcess("transformers", tiny_model, sys.executable) as process:
        assert set(process.versions) == {"python", "torch", "transformers"}
        assert process.render({"messages": MESSAGES}) == prompt
        assert process.render({"text": "Lyon"}) == engine.render({"text": "Lyon"})
        answer = process.answer(prompt, 5)
        assert answer == engine.answer(prompt, 5)
        assert process.score(prompt) == pytest.approx(engine.score(prompt, 1), abs=1e-4)
        assert process.score(prompt, 9) == pytest.approx(engine.score(prompt, 9), abs=1e-4)
        with pytest.raises(EngineRefused, match="transformers: IndexError"):
            process.score([10**6, 1, 2])  # a request that fails does not end the process
        assert process.answer(prompt, 5) == answer


def test_an_answer_ends_by_the_tokens_of_the_folder(tiny_model: Path, tmp_path: Path) -> None:
    engine = run.load_engine("transformers", tiny_model, tiny_model)
    prompt = engine.render({"messages": MESSAGES})
    whole = engine.answer(prompt, 6)["ids"]
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    path = folder / "generation_config.json"
    config = json.loads(path.read_text())
    at = next(i for i, token in enumerate(whole) if i > 1 and token not in whole[:i])
    path.write_text(json.dumps(config | {"eos_token_id": [2, whole[at]]}))
    answer = run.load_engine("transformers", folder, folder).answer(prompt, 6)
    assert (answer["ids"], answer["finish"]) == (whole[:at], "stop")


def test_what_can_not_be_started_is_said_in_the_runtimes_own_words(
    tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainerError, match="can't be started: No such file") as missing:
        EngineProcess("transformers", tiny_model, str(tmp_path / "python"))
    assert "an environment that has the runtime" in str(missing.value.fix)
    with pytest.raises(TrainerError, match="echo answers as no interpreter of Python: /") as other:
        EngineProcess("transformers", tiny_model, "/bin/echo")
    assert other.value.fix == missing.value.fix
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nobody"}))
    with pytest.raises(EngineRefused, match=r"transformers: ValueError: .*nobody"):
        EngineProcess("transformers", tmp_path, sys.executable)
    with pytest.raises(EngineRefused, match="has 0 GGUF files; one is needed"):
        EngineProcess("llama_cpp", tmp_path, sys.executable)


def test_an_interpreter_without_the_runtime_gets_the_command_that_installs_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "python"
    # -I -S: an interpreter without packages.
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(EngineRefused, match="No module named") as refused:
        EngineProcess("mlx_lm", tiny_model, str(bare))
    assert "pip install mlx-lm" in str(refused.value.fix)
    assert "--runtime-python" in str(refused.value.fix)


def test_nothing_that_a_library_prints_is_taken_for_a_reply(tmp_path: Path) -> None:
    """Also what C code writes to the descriptor itself."""
    code = (
        "import os, runpy, sys; sys.argv = ['run.py', 'transformers', sys.argv[1]]\n"
        "import transformers\n"
        "def noisy(*a, **k): os.write(1, b'noise\\n'); print('noise'); raise SystemExit('enough')\n"
        "transformers.AutoModelForCausalLM.from_pretrained = noisy\n"
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny.build_model(tmp_path / "model"))],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert json.loads(done.stdout) == {"error": "SystemExit: enough"}
    assert done.stderr.count("noise") == 2


def test_a_process_leaves_no_folder_behind(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a runtime converted a model to is as large as the model."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with EngineProcess("transformers", tiny_model, sys.executable) as process:
        [work] = tmp_path.iterdir()
        assert process.render({"text": "Lyon"})
    assert not work.exists() and not list(tmp_path.iterdir())


def test_a_conversion_that_fails_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    run.convert("builder", [sys.executable, "-c", "print('fine')"])
    program = "import sys; print('a log', file=sys.stderr); sys.exit('no such layer')"
    with pytest.raises(RuntimeError, match=r"^the builder failed: no such layer$"):
        run.convert("builder", [sys.executable, "-c", program])
    assert "a log" in capfd.readouterr().err


def test_a_conversion_ends_when_nobody_waits_for_it(tmp_path: Path) -> None:
    """A process in between starts it, and is killed."""
    pid_file = tmp_path / "pid"
    converter = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); "
    converter += "time.sleep(120)"
    convert = (
        f"import runpy; run = runpy.run_path({str(PROGRAM)!r}); import sys\n"
        f"run['convert']('builder', [sys.executable, '-c', {converter!r}])\n"
    )
    parent = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {convert!r}], stderr=subprocess.DEVNULL)\n"
        "time.sleep(120)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        pid = wait_until(lambda: pid_file.exists() and pid_file.read_text(), "it converts")
        process.kill()
    wait_until(lambda: not is_running(int(pid)), "the converter has ended")
