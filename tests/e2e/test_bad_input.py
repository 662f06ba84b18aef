"""Invalid input from the command line: one clear error, the right exit code, nothing lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from processes import Cli, JobFile

GOOD = '{"prompt": "Where?", "completion": "Here."}\n'


@dataclass(frozen=True)
class InvalidJob:
    """A job folder with one fault, and the error that cloudft must print."""

    name: str
    corrupt: Callable[[Path], object]
    exit_code: int
    location: str
    """`FILE:LINE, FIELD`, as far as there is one."""
    message: str
    fix: str = ""


def data(content: bytes | str) -> Callable[[Path], object]:
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / "train.jsonl").write_bytes(raw)


def job_file_text(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "cloudft.yaml").write_text(text)


def job_file_is_a_folder(folder: Path) -> None:
    (folder / "cloudft.yaml").unlink()
    (folder / "cloudft.yaml").mkdir()


def setting(**changes: object) -> Callable[[Path], object]:
    """Replace top-level keys of the job file; `a__b` is the key b of the mapping a."""

    def corrupt(folder: Path) -> None:
        path = folder / "cloudft.yaml"
        spec = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            *outer, last = key.split("__")
            target = spec
            for name in outer:
                target = target[name]
            target[last] = value
        path.write_text(yaml.safe_dump(spec, sort_keys=False))

    return corrupt


def model_without(pattern: str) -> Callable[[Path], object]:
    def corrupt(folder: Path) -> None:
        model = Path(yaml.safe_load((folder / "cloudft.yaml").read_text())["base_model"])
        copy = Path(shutil.copytree(model, folder / "model"))
        for path in copy.glob(pattern):
            path.unlink()
        setting(base_model="./model")(folder)

    return corrupt


def model_of_another_family(folder: Path) -> None:
    """Request the packed path for a model that it does not support."""
    model_without("generation_config.json")(folder)
    config = folder / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "gpt2"}))
    setting(local__packed=True)(folder)


TRAIN, JOB = "train.jsonl", "cloudft.yaml"
CASES = [
    InvalidJob(
        "no-file", lambda f: (f / TRAIN).unlink(), 3, f"{TRAIN}, data.train", "no file train.jsonl"
    ),
    InvalidJob(
        "a-folder-for-a-file", setting(data__train="nowhere/"), 3, "nowhere, data.train", "no file"
    ),
    InvalidJob("empty-file", data(""), 3, TRAIN, "the file is empty"),
    InvalidJob(
        "not-utf-8", data(GOOD.encode() + b'{"prompt": "caf\xe9"}\n'), 3, f"{TRAIN}:2", "0xe9"
    ),
    InvalidJob(
        "bad-json", data(GOOD * 2 + '{"prompt": "a"'), 3, f"{TRAIN}:3", "not JSON", "a whole record"
    ),
    InvalidJob(
        "wrong-keys",
        data(GOOD + '{"promt": "a", "completion": "b"}\n'),
        3,
        f"{TRAIN}:2",
        "no known format has these keys: 'promt'",
        "give it the keys of the records before ('prompt', 'completion')",
    ),
    InvalidJob(
        "empty-completion",
        data(GOOD + '{"prompt": "a", "completion": " "}\n'),
        3,
        f"{TRAIN}:2, /completion",
        "'completion' is empty",
    ),
    InvalidJob(
        "a-json-array-cut-off",
        data('[{"prompt": "a", "completion": "b"}'),
        3,
        f"{TRAIN}:1",
        "the file ends before the array does",
        "check --fix DIR",
    ),
    InvalidJob(
        "unlabeled",
        data('{"text": "a"}\n'),
        3,
        f"{TRAIN}:1",
        "unlabeled",
        "CONTINUED_PRE_TRAINING",
    ),
    InvalidJob("no-job-file", lambda f: (f / JOB).unlink(), 2, JOB, "no job file", "cloudft init"),
    InvalidJob("no-yaml", job_file_text("name: [a\n"), 2, f"{JOB}:2", "not YAML"),
    InvalidJob(
        "empty-job-file", job_file_text(""), 2, f"{JOB}:1", "the job file is empty", "cloudft init"
    ),
    InvalidJob("job-file-is-a-folder", job_file_is_a_folder, 2, JOB, "a folder, not a job file"),
    InvalidJob(
        "unknown-key",
        setting(hyperparameter={}),
        2,
        "hyperparameter",
        "no field",
        "hyperparameters?",
    ),
    InvalidJob(
        "a-name-with-a-space", setting(name="my job"), 2, "name", "'my job' is not 1 to 63 letters"
    ),
    InvalidJob("a-name-too-long", setting(name="a" * 64), 2, "name", "Bedrock's jobName"),
    InvalidJob(
        "a-rate-out-of-range",
        setting(hyperparameters__learningRate=5),
        2,
        "hyperparameters.learningRate",
        "takes 1e-08 to 1",
    ),
    InvalidJob(
        "out-of-bedrocks-range",
        setting(
            base_model="nova-lite", local__model="smollm2-135m", hyperparameters={"epochCount": 9}
        ),
        2,
        "hyperparameters.epochCount",
        "nova-lite takes 1 to 5 (https://docs.aws.amazon.com/",
        "give a value of 1 to 5",
    ),
    InvalidJob(
        "unknown-hyperparameter",
        setting(hyperparameters__learning_rate=0.1),
        2,
        "hyperparameters.learning_rate",
        "no hyperparameter 'learning_rate'",
        "did you mean learningRate?",
    ),
    InvalidJob(
        "unknown-model", setting(base_model="nova-light"), 2, f"{JOB}:1, base_model", "nova-lite"
    ),
    InvalidJob(
        "no-model-folder", setting(base_model="./no"), 2, f"{JOB}:1, base_model", "no folder './no'"
    ),
    InvalidJob(
        "no-weights", model_without("*.safetensors"), 2, f"{JOB}:1, base_model", "no weights"
    ),
    InvalidJob(
        "no-tokenizer", model_without("tokenizer*"), 3, f"{JOB}:1, base_model", "no tokenizer"
    ),
    InvalidJob(
        "qlora",
        setting(local__method="qlora"),
        3,
        "local.method",
        "bitsandbytes is not",
        "`method: lora`",
    ),
    InvalidJob(
        "fsdp", setting(local__fsdp=True), 3, "local.fsdp", "several processes", "processes (auto"
    ),
    InvalidJob(
        "packed",
        model_of_another_family,
        3,
        "local.packed",
        "starcoder2, not gpt2",
        "set local.packed: auto",
    ),
    InvalidJob(
        "no-such-device", setting(local__device="cuda"), 3, "local.device", "no cuda device", "auto"
    ),
    InvalidJob(
        "longer-than-the-model",
        setting(local__max_length=1000),
        3,
        "local.max_length",
        "was made for 256 tokens",
        "256 or less",
    ),
    InvalidJob(
        "a-share-above-1", setting(data__validation=1.5), 2, "data.validation", "1.5", "write 0.1"
    ),
    InvalidJob("a-negative-budget", setting(budget_usd=-1), 2, "budget_usd", "at least 0"),
    InvalidJob("a-wrong-type", setting(seed="many"), 2, "seed", "'many'", "a whole number"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_one_clear_error_and_nothing_is_started(
    cli: Cli, job_file: JobFile, home: Path, case: InvalidJob
) -> None:
    folder = job_file(records=8).parent
    case.corrupt(folder)
    before = contents(folder)
    done = cli("submit", "--output", "json", cwd=folder)
    assert done.returncode == case.exit_code, done.stderr

    # A check that looks for a GPU takes seconds: then the records are counted meanwhile.
    [error_line, remedy] = [
        line
        for line in done.stderr.splitlines()
        if not line.startswith(("warning", "reading: ", "preparing "))
    ]
    assert error_line.startswith("error: ") and case.message in error_line
    assert error_line.endswith(f"{case.location})"), "the location stands at the end"
    assert remedy.startswith("  fix: ") and case.fix in remedy
    error = json.loads(done.stdout)["error"]
    assert error.keys() == {"code", "message", "file", "line", "field", "fix"}
    assert error["message"] in error_line and error["fix"] in remedy

    assert contents(folder) == before, "the user's files are as they were"
    assert not list((home / "jobs").glob("*/record.json")), "there is no job"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_problem_of_a_file_is_reported_at_once(cli: Cli, job_file: JobFile) -> None:
    folder = job_file(records=8).parent
    data(GOOD + "{\n" + GOOD + '{"prompt": "", "completion": "a"}\n')(folder)
    done = cli("check", "--output", "json", cwd=folder)
    assert done.returncode == 3
    findings = json.loads(done.stdout)["findings"]
    assert [f["line"] for f in findings if f["severity"] == "error"] == [2, 4]


@pytest.mark.parametrize("command", ["status", "watch", "logs", "metrics", "stop", "resume"])
def test_a_job_that_there_is_not_is_reported_with_where_to_look(cli: Cli, command: str) -> None:
    done = cli(command, "nothing", "--output", "json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "JobNotFound"
    assert "cloudft list" in done.stderr and "Traceback" not in done.stderr


def test_a_mistyped_command_names_the_nearest(cli: Cli) -> None:
    done = cli("sumbit")
    assert done.returncode == 2
    assert "Did you mean 'submit'?" in done.stderr and "cloudft --help" in done.stderr
