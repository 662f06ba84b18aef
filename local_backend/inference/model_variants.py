"""Load the models of one job, the base and the tuned one, and fingerprint their weights."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator

import torch

from local_backend.device import choose_device, choose_dtype, free_memory_bytes
from local_backend.errors import TrainerError
from local_backend.inference.batched_answers import BatchedAnswers
from local_backend.job_dir import ARTIFACTS, MODEL, JobDir
from local_backend.models import lora
from local_backend.models.load_model import (
    LoadedModel,
    load_model,
    load_tuned_weights,
)
from local_backend.models.load_tokenizer import fix_template_date, load_tokenizer
from local_backend.models.lora_experts import BASE_LAYER
from local_backend.models.weights import locate_weights
from local_backend.settings import Settings

TUNED, BASE = "tuned", "base"


class ModelVariants:
    """The tuned model and its base, sharing weights if the method allows it."""

    def __init__(self, job_dir: JobDir, settings: Settings) -> None:
        device = choose_device(settings.device)
        dtype = choose_dtype("auto", device) if device.type == "cuda" else torch.float32
        folder = job_dir / ARTIFACTS / MODEL
        source = locate_weights(settings.model_name, settings.weights)
        self.method = settings.method
        self._batched: dict[int, BatchedAnswers] = {}
        self.base = load_model(source, dtype, device)
        fix_template_date(self.base.tokenizer, settings.created_on)
        self.tuned = self.base
        self.has_tuned_model = folder.is_dir()
        if not self.has_tuned_model:
            self.base.model.eval()
            self.base.model.config.use_cache = True
            return
        if settings.method == "full":
            self.base.model.eval()
            self.tuned = load_model(str(folder), dtype, device)
        load_tuned_weights(folder, self.tuned, settings.method)
        self.tuned.tokenizer = self.base.tokenizer = load_tokenizer(str(folder))[0]
        self.tuned.model.config.use_cache = self.base.model.config.use_cache = True

    @contextlib.contextmanager
    def variant(self, name: str) -> Iterator[LoadedModel]:
        """Yield the model called `name`: the base is the tuned one with its adapters disabled.

        Raise TrainerError if the job has left no tuned model yet.
        """
        if name == TUNED and not self.has_tuned_model:
            raise TrainerError("The job has no tuned model yet.", fix="wait until it is Completed.")
        if not self.has_tuned_model:
            yield self.base
        elif name == BASE and self.base is self.tuned:
            with lora.disable_adapters(self.tuned.model):
                yield self.tuned
        else:
            yield self.base if name == BASE else self.tuned

    def batched_answers(self, name: str) -> BatchedAnswers | None:
        """Return what decodes many prompts by a variant; None for models that it can't compute.

        It keeps another copy of the weights, and is made at its first use.
        """
        loaded = self.base if name == BASE or not self.has_tuned_model else self.tuned
        if id(loaded) not in self._batched:
            weights = sum(weight.nbytes for weight in loaded.model.parameters())
            free = free_memory_bytes(loaded.model.device)
            if free is not None and free < 2 * weights:
                return None
            self._batched[id(loaded)] = BatchedAnswers(loaded)
        found = self._batched[id(loaded)]
        return found if found.can_decode else None

    def compute_identities(self) -> dict[str, str]:
        """Return the SHA-256 of the weights in use, by variant.

        Adapters whose update is zero, and full weights that were never changed, are the base.
        """
        base = hash_tensors(base_weights(self.base))
        if not self.has_tuned_model:
            return {BASE: base}
        if self.base is not self.tuned:
            return {BASE: base, TUNED: hash_tensors(base_weights(self.tuned))}
        adapters = list(adapter_weights(self.tuned))
        has_update = any(
            bool(tensor.any()) for name, tensor in adapters if name.endswith(".lora_B")
        )
        return {BASE: base, TUNED: hash_tensors(adapters, base) if has_update else base}


def base_weights(loaded: LoadedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the base model's own weights, under their names without adapters."""
    for name, tensor in sorted(loaded.model.named_parameters()):
        if ".lora_" not in name:
            yield name.replace(BASE_LAYER, ""), tensor


def adapter_weights(loaded: LoadedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the adapters' weights, with the scale of each layer's update."""
    for name, layer in sorted(lora.lora_layers(loaded.model)):
        yield f"{name}.scaling", torch.tensor([layer.scaling])
        yield f"{name}.lora_A", layer.lora_A
        yield f"{name}.lora_B", layer.lora_B


def hash_tensors(tensors: Iterable[tuple[str, torch.Tensor]], start: str = "") -> str:
    """Return the SHA-256 of names and float32 values."""
    digest = hashlib.sha256(start.encode())
    for name, tensor in tensors:
        digest.update(name.encode())
        # In one format, so that a model has one identity whatever it is loaded in.
        values = tensor.detach().to("cpu", torch.float32).contiguous()
        digest.update(values.reshape(-1).numpy().data)
    return digest.hexdigest()
