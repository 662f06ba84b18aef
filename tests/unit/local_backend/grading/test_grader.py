"""Rewards by a grader's file, and one clear error for each way in which it can fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from local_backend.grading import shapes
from local_backend.grading.grader import Grade, Grader, GraderError, GraderSettings, Sample
from local_backend.grading.redact import redact
from local_backend.grading.worker_process import WORKER, worker_environment

SECRET = "the customer's own words"
SAMPLES = [
    Sample(
        id=f"row-{number}",
        messages=[
            {"role": "user", "content": "How much is it?"},
            {"role": "assistant", "content": f"{SECRET} {number}"},
        ],
        metadata={} if number == 2 else {"reference_answer": str(number)},
    )
    for number in range(4)
]
HEAD = """import asyncio, ctypes, decimal, json, os, re, subprocess, sys, time

def answer(sample):
    return sample["messages"][-1]["content"]

def replies(event):
    return [{"id": one["id"], "aggregate_reward_score": len(answer(one))} for one in event]

"""
HANDLER = "def lambda_handler(event, context):\n    "


def write_grader(folder: Path, body: str, *, head: str = HEAD + HANDLER) -> Path:
    path = folder / "tickets.py"
    path.write_text(f"{head}{body}\n")
    return path


def graded(path: Path, samples: list[Sample] = SAMPLES, **settings: Any) -> list[Grade]:
    with Grader(GraderSettings(path, **settings)) as grader:
        return grader.grade(samples)


@pytest.mark.parametrize(
    "body",
    [
        "return replies(event)",
        "return replies(event)[::-1]",
        "return {'statusCode': 200, 'body': json.dumps(replies(event))}",
        "print('x' * 100_000, flush=True); os.write(1, b'{}\\n'); return replies(event)",
        "assert context.memory_limit_in_mb == '512' and context.function_name == 'tickets';"
        " assert 0 < context.get_remaining_time_in_millis() <= 30_000; return replies(event)",
        "return [one | {'aggregate_reward_score':"
        " decimal.Decimal(one['aggregate_reward_score'])} for one in replies(event)]",
    ],
    ids=["list", "order", "sagemaker", "prints", "context", "decimal"],
)
def test_each_reply_that_lambda_takes_has_the_rewards(tmp_path: Path, body: str) -> None:
    expected = [Grade(float(len(s["messages"][-1]["content"]))) for s in SAMPLES]
    assert graded(write_grader(tmp_path, body)) == expected


def test_metrics_are_kept_by_name(tmp_path: Path) -> None:
    metric = "[{'name': 'short', 'value': 1, 'type': 'Metric'}]"
    body = f"return [one | {{'metrics_list': {metric}}} for one in replies(event)]"
    assert graded(write_grader(tmp_path, body))[0].metrics == {"short": 1.0}


ON_ROW_1 = "[exec('{}') for one in event if one['id'] == 'row-1']; return replies(event)"


@pytest.mark.parametrize(
    ("body", "sample", "words"),
    [
        (ON_ROW_1.format("raise ValueError(answer(one))"), "row-1", "tickets.py:10 raises ValueEr"),
        (
            "[one['metadata']['reference_answer'] for one in event]; return replies(event)",
            "row-2",
            "give this pro",
        ),
        ("return [one['reference_answer'] for one in event]", "row-0", "['metadata']['reference"),
        ("return event['messages']", "row-0", "the event is a list of samples"),
        (ON_ROW_1.format("time.sleep(60)"), "row-1", "takes longer than 1 s"),
        ("re.match('(a+)+$', 'a' * 40 + 'b')", "row-0", "tickets.py:10 takes longer than 1 s"),
        (ON_ROW_1.format("sys.exit()"), "row-1", "sys.exit"),
        ("os._exit(7)", "row-0", "status 7"),
        ("ctypes.string_at(0)", "row-0", "SIGSEGV"),
        (ON_ROW_1.format('b = bytearray(b"x") * 400_000_000'), "row-1", "more than its 128 MB"),
        (
            "subprocess.run([sys.executable, '-c', 'b = bytearray(b\"x\") * 400_000_000;'"
            " 'import time; time.sleep(60)'])",
            "row-0",
            "more than its 128 MB",
        ),
        ("return replies(event)[:-1]", "row-3", "3 rewards for 4 samples"),
        ("return None", "row-0", "null, not a list"),
        ("return len(event) * [1.0]", "row-0", "entry 0 of its reply is 1.0"),
        ("return [one | {'id': 'row-1'} for one in replies(event)]", "row-1", "twice"),
        ("return [one | {'id': answer(event[0])} for one in replies(event)]", "row-0", "no sample"),
        ("return [{'id': one['id'], 'reward': 1} for one in event]", "row-0", "has no aggregate"),
        ("return {'statusCode': 500, 'body': ''}", "row-0", "statusCode 500"),
        ("return asyncio.sleep(0)", "row-0", "must not be async"),
        (
            "return [{'id': one['id'], 'aggregate_reward_score': {1}} for one in event]",
            "row-0",
            "set",
        ),
        *(
            (
                f"r = replies(event); r[1]['aggregate_reward_score'] = {value}; return r",
                "row-1",
                is_,
            )
            for value, is_ in [
                *(("float('nan')", "is nan"), ("float('inf')", "is inf"), ("True", "is true")),
                *(("answer(event[1])", "is a text"), ("None", "is null"), ("10**400", "too large")),
            ]
        ),
    ],
)
def test_a_failing_grader_is_one_error_that_names_the_sample_and_quotes_nothing(
    tmp_path: Path, body: str, sample: str, words: str
) -> None:
    path = write_grader(tmp_path, body)
    limits: dict[str, Any] = {"timeout_seconds": 1.0} if "longer" in words else {}
    with pytest.raises(GraderError) as caught:
        graded(path, memory_mb=128, **limits)
    assert caught.value.sample == sample
    assert words in str(caught.value) and caught.value.fix
    assert sample in caught.value.message and SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("x = 1\ndef lambda_handler(event, context)\n    return 1", 2, "expected ':'"),
        ("import json\nimport no_such_module", 2, "a grader is one file"),
        ("x = 1\ny = x / 0", 2, "ZeroDivisionError"),
        ("import sys\nsys.exit(1)", 2, "SystemExit"),
        ("def grade(event): ...", None, "no function lambda_handler (it has grade)"),
        ("lambda_handler = 3", None, "no function lambda_handler"),
    ],
)
def test_a_file_that_is_no_grader_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int | None, words: str
) -> None:
    with pytest.raises(GraderError) as caught:
        graded(write_grader(tmp_path, text, head=""))
    assert words in str(caught.value) and caught.value.line == line
    assert caught.value.sample is None


def test_after_a_time_out_the_next_call_has_a_new_process(tmp_path: Path) -> None:
    body = "time.sleep(60 * (event[0]['id'] == 'row-0')); return replies(event)"
    path = write_grader(tmp_path, body)
    with Grader(GraderSettings(path, timeout_seconds=1.0)) as grader:
        with pytest.raises(GraderError, match="row-0"):
            grader.grade(SAMPLES[:1])
        assert len(grader.grade(SAMPLES[1:])) == 3


def test_the_graders_memory_is_its_own_whatever_the_caller_has(tmp_path: Path) -> None:
    ballast = bytearray(b"x") * 300_000_000  # ru_maxrss would count it for what is started
    assert graded(write_grader(tmp_path, "return replies(event)"), memory_mb=128)
    assert ballast


def test_no_secret_of_the_caller_and_no_neighbor_reaches_a_grader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PYTHON_TOKEN", "DATABASE_URL"):
        monkeypatch.setenv(name, SECRET)
    (tmp_path / "neighbor.py").touch()
    (tmp_path / "data.json").touch()
    body = (
        f"assert {SECRET!r} not in os.environ.values() and not os.listdir();"
        " assert os.environ['HOME'] == os.getcwd(); import shapes"
    )
    with pytest.raises(GraderError, match="No module named 'shapes'"):
        graded(write_grader(tmp_path, body))
    with pytest.raises(GraderError, match="a grader is one file"):
        graded(write_grader(tmp_path, "import neighbor", head=""))
    assert not set(worker_environment(GraderSettings(tmp_path), "")) & {"HF_TOKEN", "PYTHON_TOKEN"}


def test_a_grader_and_its_children_end_with_the_process_that_uses_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    body = (
        "child = subprocess.Popen(['sleep', '600']);"
        f" open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); time.sleep(600)"
    )
    path = write_grader(tmp_path, body)
    code = (
        "import sys; from pathlib import Path; from local_backend.grading.grader import *;"
        f" Grader(GraderSettings(Path({str(path)!r}), timeout_seconds=600)).grade({SAMPLES!r})"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    family = [int(pid) for pid in pids.read_text().split()]
    wait_until(lambda: not any(map(is_running, family)))


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_the_same_file_has_the_same_rewards_packed_for_sagemaker(tmp_path: Path) -> None:
    """The zip for SageMaker has the file as grader.py beside shapes.py, and SageMaker's event."""
    body = "return [one | {'aggregate_reward_score': int(answer(s)[-1] == s['metadata'].get("
    body += "'reference_answer'))} for one, s in zip(replies(event), event)]"
    path = write_grader(tmp_path, body)
    folder = tmp_path / "zip"
    folder.mkdir()
    (folder / "grader.py").write_bytes(path.read_bytes())
    (folder / "shapes.py").write_bytes(Path(shapes.__file__).read_bytes())
    event = shapes.to_sagemaker_event(SAMPLES)
    assert event[0]["reference_answer"] == "0" and "metadata" not in event[0]
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import json, sys, shapes; print(json.dumps("
         "shapes.lambda_handler(json.load(sys.stdin), None)))"],
        input=json.dumps(event),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    reply = json.loads(done.stdout)
    assert reply["statusCode"] == 200
    rewards = [one["aggregate_reward_score"] for one in json.loads(reply["body"])]
    assert rewards == [one.reward for one in graded(path)] == [1, 1, 0, 1]


def test_redact_hides_what_is_in_the_sample_in_any_spelling() -> None:
    sample = {"content": 'He said "no" to Zoë\nand left', "reference": "yes", "n": 12345678901}
    hidden = redact(f"could not parse {sample['content']!r} or 'yes' or 'key'", sample)
    assert hidden == "could not parse [...]' or [...] or 'key'"
    assert redact(f"bad: {json.dumps(sample['content'])[1:-1]}", sample) == "bad: [...]"
    assert redact("list index out of range", sample) == "list index out of range"


def test_the_worker_imports_no_other_file_of_ours() -> None:
    for file in (WORKER, Path(shapes.__file__)):
        assert "local_backend" not in file.read_text()
