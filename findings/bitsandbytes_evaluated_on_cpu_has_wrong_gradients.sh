#!/usr/bin/env bash
# bitsandbytes on a CPU: a 4-bit model that was evaluated once trains on wrong gradients, without a word.
#
# Packages: bitsandbytes 0.50.2, torch 2.13.0. A CPU with AVX512-BF16 (elsewhere nothing is repacked).
# Guess: model.eval(), a forward pass under no_grad, model.train(): the gradients afterwards are those of before.
# Behavior: the first forward pass in eval mode whose input needs no gradient repacks each Linear4bit's weight for an
# inference kernel, and train() does not turn that back. matmul_4bit then takes gemv_4bit, which has no gradient, for
# every later pass, training too: the output is right, its grad_fn is None, and no gradient goes through the layer. In a
# residual network the rest flows past it, so the loss looks right, adapters get gradients, and nothing is raised. On
# a CUDA device, and on CPUs without AVX512-BF16, the same lines are right.
# Why it matters: any training loop that measures a validation loss (before the first step, or every N) on such a CPU
# learns from gradients that are mostly missing. The QLoRA run does not fail; it is only worse.
# Way out: set support_avx512bf16_for_cpu = False on every Linear4bit after loading (cloudft does); evaluation then
# takes the path of training.
# Seen (SmolLM2-135M with adapters on every layer: 95 % off after):
#   before evaluation:    gradient off by 0.000, loss as the reference's: True
#   after evaluation:     gradient off by 0.816, loss as the reference's: True
#   with the way out:     gradient off by 0.000, loss as the reference's: True
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet torch==2.13.0 numpy
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps bitsandbytes==0.50.2 packaging
cat > "$folder/try.py" <<'PYTHON'
import sys

import torch
from bitsandbytes.functional import dequantize_4bit, has_avx512bf16
from bitsandbytes.nn import Linear4bit
from torch import nn

WIDTH, DEPTH = 128, 6
if not has_avx512bf16():
    print("this CPU has no AVX512-BF16: nothing to see here")
    sys.exit(0)


class Adapted(nn.Module):
    """x + W x + B A x, with W in 4 bits."""

    def __init__(self):
        super().__init__()
        self.base = Linear4bit(WIDTH, WIDTH, bias=False, compute_dtype=torch.float32, quant_type="nf4")
        self.base.weight.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(8, WIDTH) / WIDTH**0.5)
        self.b = nn.Parameter(torch.randn(WIDTH, 8) / 8**0.5 * 0.1)

    def forward(self, x):
        return x + torch.tanh(self.base(x) + x @ self.a.T @ self.b.T)


def build():
    torch.manual_seed(0)
    layers = nn.Sequential(*(Adapted() for _ in range(DEPTH)))
    for layer in layers:
        layer.base.weight.data *= 3
    return layers.to("cpu").train()  # .to() quantizes


def gradients(model):
    model.zero_grad()
    loss = model(DATA).square().mean()
    loss.backward()
    return loss.item(), torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None])


DATA = torch.randn(16, WIDTH, generator=torch.Generator().manual_seed(1))
exact = build()
for layer in exact:  # the same numbers in a plain linear layer
    weight = dequantize_4bit(layer.base.weight.data, layer.base.weight.quant_state)
    layer.base = nn.Linear(WIDTH, WIDTH, bias=False)
    layer.base.weight = nn.Parameter(weight, requires_grad=False)
expected_loss, expected = gradients(exact)


def report(name, model):
    loss, found = gradients(model)
    off = ((found - expected).norm() / expected.norm()).item()
    same = abs(loss - expected_loss) < 0.02 * abs(expected_loss)
    print(f"{name:22}gradient off by {off:.3f}, loss as the reference's: {same}")
    return off, same


def evaluate(model):
    model.eval()
    with torch.no_grad():
        model(DATA)
    model.train()


model = build()
before = report("before evaluation:", model)
evaluate(model)
after = report("after evaluation:", model)
guarded = build()
for layer in guarded:
    layer.base.support_avx512bf16_for_cpu = False
evaluate(guarded)
way_out = report("with the way out:", guarded)
as_described = before[0] < 1e-5 and way_out[0] < 1e-5 and after[0] > 0.2 and after[1]
print("as described" if as_described else "changed")
sys.exit(not as_described)
PYTHON
HF_HUB_OFFLINE=1 "$folder/env/bin/python" -W ignore "$folder/try.py" 2> "$folder/log" || { cat "$folder/log" >&2; exit 1; }
