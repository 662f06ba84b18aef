#!/usr/bin/env bash
# torch.save writes a CRC-32 for each tensor; torch.load does not verify it.
#
# Packages: torch 2.13.0, safetensors 0.8.0, gguf 0.19.0, numpy (any; for comparison).
# Guess: a checkpoint of torch.save is a zip, with a CRC-32 of every entry, so a bit flip on disk is an
# error in torch.load (perhaps not with mmap=True); formats without checksums (safetensors, GGUF) can't notice
# it; a distributed checkpoint (zips of torch.save) should.
# Behavior: PyTorch builds its zip reader without the check (pytorch/pytorch pull request 28858, issue 126952);
# there is an option not to compute the checksum, and none to verify it. Of 100 single bit flips in a tensor, in each of
# six formats for weights and optimizer states, torch, safetensors and gguf load all without an error; numpy.load,
# and Python's zipfile on the same torch.save files, detect all.
# Why it matters: a resumed run continues with another exponent in one weight or moment; the file "loads fine".
# Way out: zipfile.ZipFile(file).testzip() before torch.load (which needs no torch), and a digest for every other file.
# Seen:
#   format                                  loaded, wrong    error
#   torch.save, torch.load                       100            0
#   torch.save, torch.load(mmap=True)            100            0
#   torch.save without zip                       100            0
#   torch.distributed.checkpoint                 100            0
#   safetensors                                  100            0
#   GGUF                                         100            0
#   numpy.savez                                    0          100
#   torch.save, zipfile's testzip                  0          100
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet torch==2.13.0 safetensors==0.8.0 gguf==0.19.0 numpy
cd "$folder"
cat > try.py <<'PYTHON'
import random
import shutil
import sys
import zipfile
from pathlib import Path

import numpy
import safetensors.torch
import torch
import torch.distributed.checkpoint
from gguf import GGUFReader, GGUFWriter

torch.manual_seed(0)
WEIGHT = torch.randn(64, 64)
CONTENT = WEIGHT.numpy().tobytes()
BITS = [random.Random(seed).randrange(8 * len(CONTENT)) for seed in range(100)]


def save_npz(file):
    with file.open("wb") as stream:
        numpy.savez(stream, w=WEIGHT.numpy())


def save_gguf(file):
    writer = GGUFWriter(file, "llama")
    writer.add_tensor("w", WEIGHT.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def save_distributed(file):
    torch.distributed.checkpoint.save({"w": WEIGHT}, checkpoint_id="distributed", no_dist=True)
    shutil.copy("distributed/__0_0.distcp", file)


def load_distributed(file):
    shutil.copy(file, "distributed/__0_0.distcp")
    state = {"w": torch.zeros(64, 64)}
    torch.distributed.checkpoint.load(state, checkpoint_id="distributed", no_dist=True)
    return state["w"]


def load_checked(file):
    with zipfile.ZipFile(file) as archive:
        if archive.testzip():
            raise ValueError("a checksum differs")
    return torch.load(file)["w"]


def save_torch(file):
    torch.save({"w": WEIGHT}, file)


FORMATS = {
    "torch.save, torch.load": (save_torch, lambda file: torch.load(file)["w"]),
    "torch.save, torch.load(mmap=True)": (save_torch, lambda file: torch.load(file, mmap=True)["w"]),
    "torch.save without zip": (
        lambda file: torch.save({"w": WEIGHT}, file, _use_new_zipfile_serialization=False),
        lambda file: torch.load(file)["w"],
    ),
    "torch.distributed.checkpoint": (save_distributed, load_distributed),
    "safetensors": (
        lambda file: safetensors.torch.save_file({"w": WEIGHT}, file),
        lambda file: safetensors.torch.load_file(file)["w"],
    ),
    "GGUF": (save_gguf, lambda file: torch.from_numpy(GGUFReader(file).tensors[0].data.copy())),
    "numpy.savez": (save_npz, lambda file: torch.from_numpy(numpy.load(file)["w"])),
    "torch.save, zipfile's testzip": (save_torch, load_checked),
}
same = True
print(f"{'format':38}{'loaded, wrong':>15}{'error':>9}")
for name, (save, load) in FORMATS.items():
    file = Path("file")
    save(file)
    good = file.read_bytes()
    assert torch.equal(load(file), WEIGHT), name
    start = good.index(CONTENT)
    wrong = errors = 0
    for bit in BITS:
        damaged = bytearray(good)
        damaged[start + bit // 8] ^= 1 << bit % 8
        file.unlink()
        file.write_bytes(damaged)
        try:
            wrong += not torch.equal(load(file), WEIGHT)
        except Exception:
            errors += 1
    print(f"{name:38}{wrong:15}{errors:9}")
    checked = "numpy" in name or "zipfile" in name
    same = same and (wrong, errors) == ((0, 100) if checked else (100, 0))
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
"$folder/env/bin/python" -W ignore try.py
