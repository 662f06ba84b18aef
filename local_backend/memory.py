"""How much memory a step takes, found without having it: the step is gone through with tensors
that have shapes and no content, and what is alive at a time is added up.

So it holds for any model, method and device whose operations are the real step's; no weight is
read. What is not PyTorch's (interpreter, libraries, scratch space) is added by measurement.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from local_backend import lora
from local_backend.batches import (
    Encoded,
    Example,
    MicroLimit,
    encode,
    longest_allowed,
    micro_batches,
)
from local_backend.loss import loss_of
from local_backend.model import Loaded, load_tokenizer, trainable
from local_backend.settings import Settings
from local_backend.template import stop_tokens
from local_backend.weights import locate

LIBRARIES = 420 * 2**20
"""Resident memory of a process that has loaded PyTorch and transformers and nothing else."""
AT_WORK = 640 * 2**20
"""The same once steps were taken on a CPU: with oneDNN's code and buffers, and what malloc keeps of
what was freed (0.57 to 0.84 GB measured; benchmarks/memory.py).
"""
CUDA_CONTEXT = 500 * 2**20
"""What CUDA itself holds of a GPU, kernels included."""
ROOM = 0.9
"""So much of the free memory may be taken: what is measured can lie 15 % above the prediction."""


@dataclass(frozen=True)
class Need:
    """Bytes: what stands all the time (weights, optimizer), and the most at any time of a step."""

    standing: int
    peak: int


def need(
    config: Any,
    settings: Settings,
    dtype: torch.dtype,
    device: torch.device,
    examples: Sequence[Example],
    limit: MicroLimit,
    *,
    thrifty: bool = False,
) -> Need:
    """Of one step over `examples` with so much at once, on the device or the machine."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        loaded = shapes_of(config, settings, dtype, device)
        weights = list(trainable(loaded.model).values())
        optimizer = torch.optim.AdamW(weights, lr=1e-4, foreach=True)
        loss = loss_of(loaded, dtype, device)
        if thrifty:
            loss.save_memory()
        alive = Alive(device)
        for tensor in (*loaded.model.parameters(), *loaded.model.buffers()):
            alive.see(tensor)
        standing = alive.bytes
        with alive:
            for part in micro_batches(examples, limit, loss.size):
                loss(part).backward()
            optimizer.step()
    return Need(standing, alive.most + overhead(device))


class Alive(TorchDispatchMode):
    """Adds up the storages that are alive on a device; `most` is the largest sum there was."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.bytes, self.most = device.type, 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The operation as it is, and its results seen."""
        found = func(*args, **(kwargs or {}))
        for value in tree_leaves(found):
            if isinstance(value, torch.Tensor):
                self.see(value)
        return found

    def see(self, tensor: torch.Tensor) -> None:
        """Count its storage, once, until it is gone."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if tensor.device.type == self.device and key not in self._known:
            self._known.add(key)
            self.bytes += size
            self.most = max(self.most, self.bytes)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.bytes -= size


def encoded(settings: Settings) -> tuple[Any, Encoded]:
    """The model's configuration, and the training data as tokens; no weight is read."""
    from transformers import AutoConfig

    source = locate(settings.model_name, settings.weights)
    tokenizer, plain = load_tokenizer(source)
    config = AutoConfig.from_pretrained(source)
    shell = _Shell(config)
    loaded = Loaded(shell, tokenizer, source, stop_tokens(tokenizer, None), plain)
    data = encode(settings.data["train"], settings, loaded, longest_allowed(settings, loaded))
    return config, data


class _Shell:
    """What encoding asks of a model."""

    def __init__(self, config: Any) -> None:
        self.config = config


def shapes_of(config: Any, settings: Settings, dtype: torch.dtype, device: torch.device) -> Loaded:
    """The model as training has it, without content."""
    from transformers import AutoModelForCausalLM

    full = settings.method == "full"
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if full else dtype)
    model.config.use_cache = False
    if not full:
        lora.put_on(model, settings.lora, settings.seed)
    return Loaded(model.train(), _NoTokenizer(), "", [0], False)


class _NoTokenizer:
    """What a step asks of a tokenizer."""

    pad_token_id = 0


def loading(source: str, need: Need) -> int:
    """The most bytes while the weights are read: their file is mapped beside what is made of it."""
    files = sum(path.stat().st_size for path in Path(source).glob("*.safetensors"))
    return LIBRARIES + files + need.standing


def overhead(device: torch.device) -> int:
    """What is there beside the tensors."""
    return CUDA_CONTEXT if device.type == "cuda" else AT_WORK
