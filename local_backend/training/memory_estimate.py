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

from local_backend.data.batches import (
    EncodedData,
    Example,
    MicroBatchLimit,
    encode_file,
    resolve_max_length,
    split_into_micro_batches,
)
from local_backend.data.chat_template import find_stop_tokens
from local_backend.models import lora
from local_backend.models.load_model import LoadedModel, load_tokenizer, trainable_parameters
from local_backend.models.weights import locate_weights
from local_backend.settings import Settings
from local_backend.training.loss import make_loss

IMPORTS_BYTES = 420 * 2**20
"""Resident memory of a process that has loaded PyTorch and transformers and nothing else."""
CPU_TRAINING_BYTES = 640 * 2**20
"""The same once steps were taken on a CPU: with oneDNN's code and buffers, and what malloc keeps of
what was freed (0.57 to 0.84 GB measured; benchmarks/memory_estimate.py).
"""
CUDA_CONTEXT_BYTES = 500 * 2**20
"""What CUDA itself holds of a GPU, kernels included."""
USABLE_MEMORY_FRACTION = 0.9
"""So much of the free memory may be taken: what is measured can lie 15 % above the prediction."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes: what stands all the time (weights, optimizer), and the most at any time of a step."""

    persistent: int
    peak: int


def estimate_step_memory(
    config: Any,
    settings: Settings,
    dtype: torch.dtype,
    device: torch.device,
    examples: Sequence[Example],
    limit: MicroBatchLimit,
    *,
    gradient_checkpointing: bool = False,
) -> MemoryEstimate:
    """Of one step over `examples` with so much at once, on the device or the machine."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        loaded = build_weightless_model(config, settings, dtype, device)
        weights = list(trainable_parameters(loaded.model).values())
        optimizer = torch.optim.AdamW(weights, lr=1e-4, foreach=True)
        loss = make_loss(loaded, dtype, device)
        if gradient_checkpointing:
            loss.enable_gradient_checkpointing()
        alive = AllocationTracker(device)
        for tensor in (*loaded.model.parameters(), *loaded.model.buffers()):
            alive.track(tensor)
        standing = alive.live_bytes
        with alive:
            for part in split_into_micro_batches(examples, limit, loss.count_tokens):
                loss(part).backward()
            optimizer.step()
    return MemoryEstimate(standing, alive.peak_bytes + runtime_overhead_bytes(device))


class AllocationTracker(TorchDispatchMode):
    """Adds up the storages that are alive on a device; `most` is the largest sum there was."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.live_bytes, self.peak_bytes = device.type, 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The operation as it is, and its results seen."""
        found = func(*args, **(kwargs or {}))
        for value in tree_leaves(found):
            if isinstance(value, torch.Tensor):
                self.track(value)
        return found

    def track(self, tensor: torch.Tensor) -> None:
        """Count its storage, once, until it is gone."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if tensor.device.type == self.device and key not in self._known:
            self._known.add(key)
            self.live_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)
            weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live_bytes -= size


def encode_training_data(settings: Settings) -> tuple[Any, EncodedData]:
    """The model's configuration, and the training data as tokens; no weight is read."""
    from transformers import AutoConfig

    source = locate_weights(settings.model_name, settings.weights)
    tokenizer, plain = load_tokenizer(source)
    config = AutoConfig.from_pretrained(source)
    shell = _ConfigOnlyModel(config)
    loaded = LoadedModel(shell, tokenizer, source, find_stop_tokens(tokenizer, None), plain)
    data = encode_file(
        settings.data["train"], settings, loaded, resolve_max_length(settings, loaded)
    )
    return config, data


class _ConfigOnlyModel:
    """What encoding asks of a model."""

    def __init__(self, config: Any) -> None:
        self.config = config


def build_weightless_model(
    config: Any, settings: Settings, dtype: torch.dtype, device: torch.device
) -> LoadedModel:
    """The model as training has it, without content."""
    from transformers import AutoModelForCausalLM

    full = settings.method == "full"
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if full else dtype)
    model.config.use_cache = False
    if not full:
        lora.attach_adapters(model, settings.lora, settings.seed)
    return LoadedModel(model.train(), _PadTokenizer(), "", [0], False)


class _PadTokenizer:
    """What a step asks of a tokenizer."""

    pad_token_id = 0


def loading_peak_bytes(source: str, estimate: MemoryEstimate) -> int:
    """The most bytes while the weights are read: their file is mapped beside what is made of it."""
    files = sum(path.stat().st_size for path in Path(source).glob("*.safetensors"))
    return IMPORTS_BYTES + files + estimate.persistent


def runtime_overhead_bytes(device: torch.device) -> int:
    """What is there beside the tensors."""
    return CUDA_CONTEXT_BYTES if device.type == "cuda" else CPU_TRAINING_BYTES
