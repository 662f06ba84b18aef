"""The model: loaded, made ready for LoRA, QLoRA or full fine-tuning, and kept."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from local_backend.data.chat_template import ensure_chat_template, find_stop_tokens
from local_backend.errors import TrainerError
from local_backend.models import lora
from local_backend.models.pretrained import UNREADABLE_ERRORS, load_pretrained, unreadable_error
from local_backend.models.weights import locate_weights
from local_backend.settings import LoraSettings, Settings


@dataclass
class LoadedModel:
    """A model with its tokenizer, and where it came from."""

    model: Any
    tokenizer: Any
    source: str
    stop_ids: list[int]
    uses_plain_template: bool

    @property
    def stop_texts(self) -> list[str]:
        """The end marks as text."""
        return [self.tokenizer.convert_ids_to_tokens(i) for i in self.stop_ids]

    @property
    def context_length(self) -> int:
        """How many tokens the model was made for."""
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", 0) or 2048)


def load_tokenizer(source: str) -> tuple[Any, bool]:
    """The tokenizer with a chat template, and whether that is our plain one.

    A pad token that equals the end token is moved elsewhere: trainers that mask pads would mask the
    end as well, and the tuned model would never learn to stop.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        spare = ["<|endoftext|>", "<pad>", "<|finetune_right_pad_id|>", tokenizer.unk_token]
        known = tokenizer.get_vocab()
        tokenizer.pad_token = next(
            (t for t in spare if t in known and t != tokenizer.eos_token), tokenizer.eos_token
        )
    return tokenizer, ensure_chat_template(tokenizer)


def load_model(
    source: str, dtype: torch.dtype, device: torch.device, **options: Any
) -> LoadedModel:
    """Model and tokenizer from a folder or a hub id.

    Raises TrainerError for what can't be read, and for weights that are not the whole model's.
    """
    try:
        tokenizer, plain = load_tokenizer(source)
    except UNREADABLE_ERRORS as error:
        raise unreadable_error(source, error) from error
    model = load_pretrained(source, dtype=dtype, **options)
    if not options:
        model = model.to(device)
    model.config.use_cache = False
    stops = find_stop_tokens(tokenizer, model.generation_config)
    return LoadedModel(model, tokenizer, source, stops, plain)


def load_for_training(settings: Settings, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    """The model with just the weights trainable that `settings.method` trains.

    Trained weights are float32, so that small steps are not rounded away; frozen ones are in
    `dtype`.
    """
    source = locate_weights(settings.model_name, settings.weights)
    if settings.method == "full":
        loaded = load_model(source, torch.float32, device)
        loaded.model.train()
        return loaded
    if settings.method == "qlora":
        loaded = load_model(source, dtype, device, **nf4_options(device, dtype))
        loaded.model = attach_peft_adapters(loaded.model, settings.lora, settings.seed)
    else:
        loaded = load_model(source, dtype, device)
        lora.attach_adapters(loaded.model, settings.lora, settings.seed)
    loaded.model.train()
    return loaded


def nf4_options(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What from_pretrained needs to hold the frozen weights in 4 bits (QLoRA's nf4)."""
    if device.type != "cuda":
        raise TrainerError(
            f"local.method is qlora, and the device is {device.type}: 4-bit weights need CUDA.",
            fix="use `method: lora`, or run where there is an NVIDIA GPU.",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise TrainerError(
            "local.method is qlora, and bitsandbytes is not installed.",
            fix="pip install 'cloudft[qlora]'",
        )
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def attach_peft_adapters(model: nn.Module, settings: LoraSettings, seed: int) -> Any:
    """A quantised model with fresh adapters from `seed`, PEFT's own: it knows 4-bit layers.

    Raises TrainerError for unknown modules.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    chosen = lora.find_target_layers(model, settings)
    lora.check_rank(model, chosen, settings)
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=chosen,
        task_type="CAUSAL_LM",
    )
    model = prepare_model_for_kbit_training(model)
    torch.manual_seed(seed)
    return get_peft_model(model, config)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that training changes, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def load_tuned_weights(folder: Path, loaded: LoadedModel, method: str) -> None:
    """Put the tuned weights that a job left in `folder` onto the base model in `loaded`."""
    if method == "full":
        loaded.model = load_model(str(folder), loaded.model.dtype, loaded.model.device).model
    else:
        lora.load_adapter(loaded.model, folder)
    loaded.model.eval()


def save_tuned_model(
    loaded: LoadedModel, settings: Settings, folder: Path, weights: Mapping[str, torch.Tensor]
) -> None:
    """The adapter (LoRA, QLoRA) or all weights (full), with tokenizer and chat template.

    `weights` are the trained ones: those of a sharded model are nowhere else whole.
    """
    model = loaded.model
    model.config.use_cache = True
    if settings.method == "lora":
        lora.save_adapter(model, settings.lora, folder, loaded.source, weights)
    elif any(isinstance(weight, DTensor) for weight in model.parameters()):
        buffers = {n: t for n, t in model.state_dict().items() if not isinstance(t, DTensor)}
        model.save_pretrained(folder, state_dict=buffers | dict(weights))
    else:
        model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast to `dtype`, or nothing when that is float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


@contextmanager
def eval_mode(model: nn.Module, *, sharded: bool = False) -> Iterator[None]:
    """No dropout and no gradients within.

    Weights that FSDP gathers in inference mode could not be learned from afterwards.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad() if sharded else torch.inference_mode():
            yield
    finally:
        model.train(was_training)
