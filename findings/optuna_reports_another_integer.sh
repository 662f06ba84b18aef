#!/usr/bin/env bash
# optuna reports another integer than the one that the objective got, beyond 2**53; in every storage.
#
# Packages: optuna 5.0.0, sqlalchemy 2.1.9.
# Guess: trial.params holds what suggest_int returned, so that enqueue_trial(study.best_params) does the best trial again;
# and suggest_int("seed", 0, 2**63 - 1) can return every integer of the range.
# Behavior: integers are kept as float64 in all three storages, the one in memory too. An enqueued trial gets the integer
# as it is, and its params say the nearest multiple of a power of two. Drawn ones are such multiples: of 100 seeds below
# 2**63 all end in ten zero bits. Nothing is logged; the range is accepted.
# Why it matters: 64-bit seeds and hashes are drawn or enqueued so. The reported best parameters are another run's, and
# generators that look at the low bits get one value.
# Way out: a seed of at most 53 bits, or the integer as a user attribute (kept exactly by all three).
# Seen:
#   memory:  of 5 integers 4 reported otherwise; as a user attribute 0; drawn: 100 of 100 multiples of 1024, params as drawn: 100
#   sqlite:  of 5 integers 4 reported otherwise; as a user attribute 0; drawn: 100 of 100 multiples of 1024, params as drawn: 100
#   journal: of 5 integers 4 reported otherwise; as a user attribute 0; drawn: 100 of 100 multiples of 1024, params as drawn: 100
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet optuna==5.0.0 sqlalchemy==2.1.9
cd "$folder"
cat > try.py <<'PYTHON'
import sys

import optuna
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

optuna.logging.set_verbosity(optuna.logging.ERROR)
LOW, HIGH = -(2**63) + 1, 2**63 - 1
INTEGERS = [10**15 + 1, 2**53 + 1, 2**60 + 3, 2**62 + 1, -(2**55) - 1]
STORAGES = {
    "memory": InMemoryStorage,
    "sqlite": lambda: RDBStorage("sqlite:///trials.db"),
    "journal": lambda: JournalStorage(JournalFileBackend("trials.log")),
}


def study_of(storage, name):
    sampler = optuna.samplers.RandomSampler(seed=0)
    return optuna.create_study(study_name=name, storage=storage, sampler=sampler, load_if_exists=True)


same = True
for title, make in STORAGES.items():
    storage = make()
    enqueued, drawing = study_of(storage, "enqueued"), study_of(storage, "drawn")
    got, drawn = [], []
    for integer in INTEGERS:
        enqueued.enqueue_trial({"seed": integer})
        trial = enqueued.ask()
        got.append(trial.suggest_int("seed", LOW, HIGH))
        trial.set_user_attr("seed", got[-1])
        enqueued.tell(trial, 0.0)
    for _ in range(100):
        trial = drawing.ask()
        drawn.append(trial.suggest_int("seed", 0, HIGH))
        drawing.tell(trial, 0.0)
    again = storage if title == "memory" else make()
    trials = study_of(again, "enqueued").trials
    other = sum(trial.params["seed"] != integer for trial, integer in zip(trials, got, strict=True))
    attributes = sum(trial.user_attrs["seed"] != integer for trial, integer in zip(trials, got, strict=True))
    multiples = sum(integer % 1024 == 0 for integer in drawn)
    kept = sum(trial.params["seed"] == integer for trial, integer in zip(study_of(again, "drawn").trials, drawn, strict=True))
    print(f"{title + ':':8} of {len(INTEGERS)} integers {other} reported otherwise; as a user attribute {attributes}; "
          f"drawn: {multiples} of 100 multiples of 1024, params as drawn: {kept}")
    same = same and got == INTEGERS and (other, attributes, multiples, kept) == (4, 0, 100, 100)
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
env/bin/python -W ignore try.py 2> log || { tail -30 log >&2; exit 1; }
