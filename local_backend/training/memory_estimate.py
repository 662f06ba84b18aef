"""Estimate the memory of a training step without allocating it.

The step runs on tensors that have shapes and no content (FakeTensorMode), and the sizes of the live
ones are added up. So the estimate holds for any model, method, objective and device whose
operations are the real step's, and no weight is read. What PyTorch does not allocate (interpreter,
libraries, scratch space) is added from measurements.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from local_backend.data.batches import MicroBatchLimit, split_into_micro_batches
from local_backend.data.chat_template import find_stop_tokens
from local_backend.data.examples import EncodedData, Example
from local_backend.data.token_cache import TokenSource, load_tokens
from local_backend.models import lora
from local_backend.models.load_model import LoadedModel, trainable_parameters
from local_backend.models.load_tokenizer import fix_template_date, load_tokenizer
from local_backend.models.weights import locate_weights
from local_backend.settings import Settings
from local_backend.training.loss import make_loss
from local_backend.training.objectives import make_objective

if TYPE_CHECKING:
    from transformers import (
        GenerationConfig,
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

Result = TypeVar("Result")

IMPORTS_BYTES = 420 * 2**20
"""Resident memory of a process that has imported PyTorch and transformers and nothing else."""
CPU_TRAINING_BYTES = 640 * 2**20
"""The same after steps on a CPU: with oneDNN's code and buffers, and freed memory that malloc keeps
(0.57 to 0.84 GB measured; benchmarks/memory_estimate.py).
"""
CUDA_CONTEXT_BYTES = 500 * 2**20
"""GPU memory that CUDA itself holds, kernels included."""
USABLE_MEMORY_FRACTION = 0.9
"""Fraction of the free memory to plan for. Measured values lie up to 15 % above the estimate."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes: what is always held (weights, optimizer), and the peak of a step."""

    persistent: int
    peak: int


@dataclass(frozen=True)
class StepEstimator:
    """Estimates the steps of one job; `config` is the model's configuration."""

    config: PreTrainedConfig
    settings: Settings
    dtype: torch.dtype
    device: torch.device

    def with_method(self, method: str) -> StepEstimator:
        """Return an estimator of the same job with another `local.method`."""
        return replace(self, settings=replace(self.settings, method=method))

    def estimate(
        self,
        examples: Sequence[Example],
        limit: MicroBatchLimit,
        *,
        gradient_checkpointing: bool = False,
    ) -> MemoryEstimate:
        """Return the memory of one step over `examples`, split by `limit`.

        Raise RuntimeError for a step whose operations depend on the content of tensors.
        """
        objective = make_objective(self.settings)
        # Fake tensors report shape, format and device (CUDA included, even where there is none),
        # and run no kernel. Indices that come from numpy are real, hence allow_non_fake_inputs.
        with FakeTensorMode(allow_non_fake_inputs=True):
            loaded = build_weightless_model(self.config, self.settings, self.dtype, self.device)
            weights = list(trainable_parameters(loaded.model).values())
            # foreach allocates temporaries that the fused optimizer of a run does not: on devices
            # without a fused one (MPS) a run has them too, elsewhere this is an upper bound.
            optimizer = torch.optim.AdamW(weights, lr=1e-4, foreach=True)
            loss = make_loss(loaded, objective, self.settings.packed, self.dtype, self.device)
            if gradient_checkpointing:
                loss.enable_gradient_checkpointing()
            tracker = AllocationTracker(self.device)
            for tensor in (*loaded.model.parameters(), *loaded.model.buffers()):
                tracker.track(tensor)
            persistent = tracker.live_bytes
            with tracker:
                for part in split_into_micro_batches(examples, limit, loss.count_tokens):
                    loss(part).backward()
                optimizer.step()
        return MemoryEstimate(persistent, tracker.peak_bytes + runtime_overhead_bytes(self.device))


class AllocationTracker(TorchDispatchMode):
    """Adds up the live tensor storages on a device; `peak_bytes` is the largest sum."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.live_bytes, self.peak_bytes = device.type, 0, 0
        self._storages: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Result],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Result:
        """Run the operation unchanged and track its results."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.track(value)
        return result

    def track(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage once, until it is freed."""
        # By storage, not by tensor: views share one.
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if tensor.device.type == self.device and key not in self._storages:
            self._storages.add(key)
            self.live_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)
            weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.live_bytes -= size


def encode_training_data(settings: Settings) -> tuple[PreTrainedConfig, EncodedData]:
    """Return the model's configuration and the training data as tokens. Read no weights.

    The tokens are those of training itself, and kept for it.
    """
    config, tokens = find_token_source(settings)
    return config, load_tokens(tokens, settings.data["train"], settings).data


def find_token_source(settings: Settings) -> tuple[PreTrainedConfig, TokenSource]:
    """Return the model's configuration, and what the job's tokens are made with."""
    from transformers import AutoConfig

    source = locate_weights(settings.model_name, settings.weights)
    tokenizer, is_plain = load_tokenizer(source)
    fix_template_date(tokenizer, settings.created_on)
    config = AutoConfig.from_pretrained(source)
    model = cast("PreTrainedModel", _ConfigOnlyModel(config))
    stop_ids = find_stop_tokens(tokenizer, read_generation_config(source, config))
    loaded = LoadedModel(model, tokenizer, source, stop_ids, is_plain)
    objective = make_objective(settings)
    max_length = objective.resolve_max_length(settings, loaded.context_length)
    return config, TokenSource(objective, loaded.record_format(settings.format), source, max_length)


def read_generation_config(source: str, config: PreTrainedConfig) -> GenerationConfig:
    """Return the generation settings that a model has when it is loaded."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(source)
    except OSError:
        return GenerationConfig.from_model_config(config)


class _ConfigOnlyModel:
    """The part of a model that encoding uses: its configuration."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self.config = config


def build_weightless_model(
    config: PreTrainedConfig, settings: Settings, dtype: torch.dtype, device: torch.device
) -> LoadedModel:
    """Return the model as training has it, without content.

    Call this under FakeTensorMode, or with the device `meta`.
    """
    from transformers import AutoModelForCausalLM

    is_full = settings.method == "full"
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if is_full else dtype)
    model.config.use_cache = False
    if not is_full:
        lora.attach_adapters(model, settings.lora, settings.seed)
    tokenizer = cast("PreTrainedTokenizerBase", _PadTokenizer())
    return LoadedModel(model.train(), tokenizer, "", [0], False)


class _PadTokenizer:
    """The part of a tokenizer that a training step uses: the pad token."""

    pad_token_id = 0


def loading_peak_bytes(source: str, estimate: MemoryEstimate) -> int:
    """Return the peak of reading weights: their file is mapped beside the tensors made of it."""
    files = sum(path.stat().st_size for path in Path(source).glob("*.safetensors"))
    return IMPORTS_BYTES + files + estimate.persistent


def runtime_overhead_bytes(device: torch.device) -> int:
    """Return the memory that is used beside the tensors."""
    return CUDA_CONTEXT_BYTES if device.type == "cuda" else CPU_TRAINING_BYTES
