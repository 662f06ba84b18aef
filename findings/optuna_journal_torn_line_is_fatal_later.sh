#!/usr/bin/env bash
# optuna's journal reads well after a torn last line, and is lost for good with the next trial.
#
# Packages: optuna 5.0.0.
# Guess: JournalFileBackend, made for many writers that may die, skips a line that a full disk or a power cut left
# unfinished, and goes on behind it; or it refuses to open such a file.
# Behavior: the study opens, without a warning, with every trial but for the torn operation. The next operation is
# appended to the torn line. That makes one line which is no JSON: the writer itself raises JSONDecodeError, and from
# then on nobody can open the study, though all earlier lines are whole.
# Why it matters: the moment at which the file could be saved passes unseen; the error comes a trial later, and names
# neither the file nor the line.
# Way out: before the study is opened, and with no other writer, cut the file after its last newline.
# Seen:
#   opened with a torn line: 3 trials
#   next trial: JSONDecodeError
#   opened again: JSONDecodeError
#   cut before it was opened: 4 trials, and opens again
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet optuna==5.0.0
cd "$folder"
cat > try.py <<'PYTHON'
import json
import sys
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_study(path):
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.create_study(study_name="s", storage=storage, load_if_exists=True)


def run_trial(study):
    trial = study.ask()
    study.tell(trial, trial.suggest_float("x", 0, 1))


def outcome(action):
    try:
        return action()
    except json.JSONDecodeError as error:
        return type(error).__name__


def write_torn(path):
    study = open_study(path)
    for _ in range(3):
        run_trial(study)
    path.write_bytes(path.read_bytes() + b'{"op_code":4,"worker_id"')


torn, cut = Path("torn.log"), Path("cut.log")
write_torn(torn)
study = open_study(torn)
opened = len(study.trials)
appended, reopened = outcome(lambda: run_trial(study)), outcome(lambda: open_study(torn))
write_torn(cut)
content = cut.read_bytes()
cut.write_bytes(content[: content.rfind(b"\n") + 1])
run_trial(open_study(cut))
saved = len(open_study(cut).trials)
print(f"opened with a torn line: {opened} trials")
print(f"next trial: {appended}")
print(f"opened again: {reopened}")
print(f"cut before it was opened: {saved} trials, and opens again")
failure = "JSONDecodeError"
sys.exit((opened, appended, reopened, saved) != (3, failure, failure, 4))
PYTHON
env/bin/python try.py
