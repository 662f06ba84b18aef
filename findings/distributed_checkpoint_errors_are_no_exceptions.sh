#!/usr/bin/env bash
# An error of a distributed checkpoint is not caught by "except Exception", so a trainer's fallback does not run.
#
# Packages: torch 2.13.0, safetensors 0.8.0 (for comparison).
# Guess: torch.distributed.checkpoint.load and save raise what torch.load and safetensors raise, or at least some
# Exception, so that try: load(newest) except Exception: load(previous) works for all of them.
# Behavior: an error of load or save, whatever it was (a cut file, a path that can't be made, a missing key, a wrong
# shape), is raised as CheckpointException, which derives from BaseException, like KeyboardInterrupt and SystemExit. Handlers
# for Exception, loggers and retry decorators do not see it; the process ends. The errors within are Exceptions, in
# its `failures`.
# Why it matters: FSDP's sharded state (accelerate, Trainer, torchtitan) uses this format; a fallback that was written
# and tested with torch.save does not run when it is needed.
# Way out: except (Exception, CheckpointException).
# Seen:
#   data cut                  CheckpointException, no Exception (RuntimeError within)
#   data empty                CheckpointException, no Exception (EOFError within)
#   data missing              CheckpointException, no Exception (FileNotFoundError within)
#   metadata cut              CheckpointException, no Exception (AssertionError within)
#   metadata empty            CheckpointException, no Exception (AssertionError within)
#   metadata missing          CheckpointException, no Exception (AssertionError within)
#   folder missing            CheckpointException, no Exception (AssertionError within)
#   another shape             CheckpointException, no Exception (ValueError within)
#   another key               CheckpointException, no Exception (RuntimeError within)
#   save where none can be    CheckpointException, no Exception (NotADirectoryError within)
#   torch.load, file cut      OSError, an Exception
#   safetensors, file cut     SafetensorError, an Exception
#   seen by except Exception: 0 of 10; of the other two formats 2 of 2
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet torch==2.13.0 safetensors==0.8.0 numpy
cd "$folder"
cat > try.py <<'PYTHON'
import contextlib
import os
import shutil
import sys
from pathlib import Path

import safetensors.torch
import torch
import torch.distributed.checkpoint as distributed

WEIGHT = torch.ones(64, 64)
FOLDER = Path("distributed")
DATA, METADATA = FOLDER / "__0_0.distcp", FOLDER / ".metadata"


def save(folder=FOLDER):
    distributed.save({"w": WEIGHT}, checkpoint_id=folder, no_dist=True)


def load(**state):
    distributed.load(state or {"w": torch.zeros(64, 64)}, checkpoint_id=FOLDER, no_dist=True)


def cut(file, size):
    os.truncate(file, size)


def load_after(damage):
    save()
    damage()
    load()


def load_cut(write, read):
    write({"w": WEIGHT}, "file")
    cut("file", 9000)
    read("file")


def save_below_a_file():
    Path("file").write_bytes(b"")
    save("file/folder")


TRIALS = {
    "data cut": lambda: load_after(lambda: cut(DATA, 9000)),
    "data empty": lambda: load_after(lambda: cut(DATA, 0)),
    "data missing": lambda: load_after(DATA.unlink),
    "metadata cut": lambda: load_after(lambda: cut(METADATA, 100)),
    "metadata empty": lambda: load_after(lambda: cut(METADATA, 0)),
    "metadata missing": lambda: load_after(METADATA.unlink),
    "folder missing": lambda: load_after(lambda: shutil.rmtree(FOLDER)),
    "another shape": lambda: (save(), load(w=torch.zeros(64, 32))),
    "another key": lambda: (save(), load(v=torch.zeros(2))),
    "save where none can be": save_below_a_file,
    "torch.load, file cut": lambda: load_cut(torch.save, torch.load),
    "safetensors, file cut": lambda: load_cut(safetensors.torch.save_file, safetensors.torch.load_file),
}
caught = {}
for name, trial in TRIALS.items():
    shutil.rmtree(FOLDER, ignore_errors=True)
    try:
        with contextlib.redirect_stderr(None):
            trial()
        raise AssertionError(name)
    except Exception as error:
        caught[name] = True
        print(f"{name:26}{type(error).__name__}, an Exception")
    except distributed.CheckpointException as error:
        caught[name] = False
        within = type(error.failures[0][0]).__name__
        print(f"{name:26}CheckpointException, no Exception ({within} within)")
print(f"seen by except Exception: {sum(list(caught.values())[:10])} of 10; of the other two formats {sum(list(caught.values())[10:])} of 2")
same = list(caught.values()) == [False] * 10 + [True] * 2
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
"$folder/env/bin/python" -W ignore try.py 2> log || { cat log >&2; exit 1; }
