"""Load a model, prepare it for LoRA, QLoRA or full fine-tuning, and save it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from local_backend.data.chat_template import RecordFormat, find_stop_tokens
from local_backend.distributed.dtensor import is_dtensor
from local_backend.models import four_bits, lora
from local_backend.models.load_tokenizer import load_tokenizer
from local_backend.models.lora_reach import AdapterReach
from local_backend.models.portable_config import write_portable_config
from local_backend.models.pretrained import UNREADABLE_ERRORS, load_pretrained, unreadable_error
from local_backend.models.weights import locate_weights
from local_backend.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class LoadedModel:
    """A model with its tokenizer and its source (a folder or a hub id)."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str
    stop_ids: list[int]
    uses_plain_template: bool
    adapter_reach: AdapterReach | None = None
    """What the adapters of a training run reach."""

    @property
    def stop_texts(self) -> list[str]:
        """Return the stop tokens as text."""
        return [str(self.tokenizer.convert_ids_to_tokens(i)) for i in self.stop_ids]

    @property
    def pad_id(self) -> int:
        """Return the token that pads rows. Its value does not matter, because it is masked."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def context_length(self) -> int:
        """Return the context length of the model in tokens."""
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", 0) or 2048)

    @property
    def template_name(self) -> str:
        """Return which chat template renders records, for people."""
        return "plain" if self.uses_plain_template else "the model's own"

    def record_format(self, name: str) -> RecordFormat:
        """Return what rendering records of a staged format needs."""
        return RecordFormat(name, self.tokenizer, self.stop_texts)


def load_model(
    source: str, dtype: torch.dtype, device: torch.device, **options: Any
) -> LoadedModel:
    """Load model and tokenizer from a folder or a hub id.

    `options` go to `from_pretrained`, and must then place the model on the device. Raise
    TrainerError for unreadable files, and for weights that are not the whole model's.
    """
    try:
        tokenizer, is_plain = load_tokenizer(source)
    except UNREADABLE_ERRORS as error:
        raise unreadable_error(source, error) from error
    model = load_pretrained(source, dtype=dtype, **options)
    if not options:
        nn.Module.to(model, device)
    model.config.use_cache = False
    stop_ids = find_stop_tokens(tokenizer, model.generation_config)
    return LoadedModel(model, tokenizer, source, stop_ids, is_plain)


def load_for_training(settings: Settings, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    """Load the model with exactly those weights trainable that `settings.method` trains.

    Trained weights are float32, so that small steps are not rounded away. Frozen ones are in
    `dtype`.
    """
    source = locate_weights(settings.model_name, settings.weights)
    if settings.method == "full":
        loaded = load_model(source, torch.float32, device)
        loaded.model.train()
        return loaded
    if settings.method == "qlora":
        four_bits.keep_memory_compact(device)
        loaded = load_model(source, dtype, device, **four_bits.nf4_options(device, dtype))
        four_bits.check_pays(loaded.model, device, settings.packed)
        four_bits.keep_gradients(loaded.model)
    else:
        loaded = load_model(source, dtype, device)
    loaded.adapter_reach = lora.attach_adapters(
        loaded.model, settings.lora, settings.seed, experts=settings.method != "qlora"
    )
    loaded.model.train()
    return loaded


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that training changes, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def load_tuned_weights(folder: Path, loaded: LoadedModel, method: str) -> None:
    """Load the tuned weights that a job left in `folder` into the base model in `loaded`."""
    if method == "full":
        loaded.model = load_model(str(folder), loaded.model.dtype, loaded.model.device).model
    else:
        lora.load_adapter(loaded.model, folder)
    loaded.model.eval()


def save_tuned_model(
    loaded: LoadedModel, settings: Settings, folder: Path, weights: Mapping[str, torch.Tensor]
) -> None:
    """Save the adapter (LoRA, QLoRA) or all weights (full), with tokenizer and chat template.

    `weights` are the trained ones, because a sharded model has them whole nowhere else.
    """
    model = loaded.model
    model.config.use_cache = True
    if settings.method != "full":
        lora.save_adapter(model, settings.lora, folder, loaded.source, weights)
    elif any(is_dtensor(weight) for weight in model.parameters()):
        buffers = {n: t for n, t in model.state_dict().items() if not is_dtensor(t)}
        model.save_pretrained(folder, state_dict=buffers | dict(weights))
    else:
        model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    write_portable_config(folder, loaded.tokenizer, loaded.stop_ids)


def autocast(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Return an autocast context for `dtype`, which does nothing for float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


@contextmanager
def eval_mode(model: nn.Module, *, sharded: bool = False) -> Iterator[None]:
    """Turn dropout and gradients off within the context.

    A sharded model uses `no_grad`: weights that FSDP gathers in inference mode could not be trained
    afterwards.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad() if sharded else torch.inference_mode():
            yield
    finally:
        model.train(was_training)
