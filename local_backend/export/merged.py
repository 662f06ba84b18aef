"""Write the merged model as a folder of Hugging Face, for transformers 4 and 5 and what reads it.

The weights are read back from disk and run on the job's held-out records before the folder appears.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from local_backend.errors import TrainerError
from local_backend.export.options import ExportOptions
from local_backend.export.proof import Proof, compare_outputs, run_prompts
from local_backend.export.tuned_model import TunedModel
from local_backend.models import merge_proof
from local_backend.models.load_model import LoadedModel, load_model
from local_backend.models.portable_config import (
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER_CONFIG,
    HfConfig,
    copy_sentencepiece_model,
    older_reader_differences,
    rewrite_json,
    write_portable_config,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TORCH_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def write_merged(tuned: TunedModel, folder: Path, options: ExportOptions) -> Proof:
    """Merge the model and write it into `folder`; return the proof that it is the tuned one.

    The model in memory is merged and converted as well. Raise TrainerError.
    """
    loaded, dtype = tuned.loaded, options.dtype
    expected = run_prompts(loaded, tuned.prompts)
    merge_proof.merge_adapters(loaded.model)
    convert_weights(loaded.model, TORCH_DTYPES[dtype])
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    write_portable_config(folder, loaded.tokenizer, loaded.stop_ids)
    copy_sentencepiece_model(tuned.base, folder)
    write_settings(folder, options)
    # Read back from disk: what is proven is what will be used, not what is in memory.
    exported = load_model(str(folder), torch.float32, torch.device("cpu"))
    check_tokenizer(loaded, exported, tuned.texts)
    comparison = compare_outputs(expected, run_prompts(exported, tuned.prompts), dtype)
    return {
        **comparison,
        "heldOut": tuned.role,
        "format": options.format,
        "differsInOlderReaders": older_reader_differences(folder, loaded.tokenizer, tuned.texts),
    }


def convert_weights(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Convert the weights and saved buffers to `dtype`, but for those the model keeps in float32.

    transformers' rule (`PreTrainedModel._get_dtype_plan`): `_keep_in_fp32_modules` holds for
    float16, `_keep_in_fp32_modules_strict` for bfloat16 too. Rounded, a router's correction bias
    selects other experts.
    """
    kept = set(model._keep_in_fp32_modules_strict or ())
    if dtype == torch.float16:
        kept |= set(model._keep_in_fp32_modules or ())
    patterns = [re.compile(re.escape(name).replace(r"\*", r"\w+")) for name in kept]
    saved = model.state_dict().keys()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        is_kept = name not in saved or any(pattern.search(name) for pattern in patterns)
        if tensor.is_floating_point() and not is_kept:
            tensor.data = tensor.data.to(dtype)


def write_settings(folder: Path, options: ExportOptions) -> None:
    """Write what the options say into the folder's configuration: a shorter context, greed.

    vLLM takes temperature, top_k and the like from generation_config.json, and not do_sample: a
    greedy model would sample. transformers refuses the temperature 0 in requests that sample.
    """
    context = options.context
    if context is not None:
        rewrite_json(folder / CONFIG, lambda config: _with_context(config, context))
        rewrite_json(
            folder / TOKENIZER_CONFIG, lambda config: config | {"model_max_length": context}
        )
    generation = folder / GENERATION_CONFIG
    if options.runtime == "vllm" and generation.is_file():
        rewrite_json(generation, _with_greed)


def _with_context(config: HfConfig, context: int) -> HfConfig:
    nested = config.get("text_config")
    if isinstance(nested, dict):
        return config | {"text_config": _with_context(nested, context)}
    return config | {"max_position_embeddings": context}


def _with_greed(generation: HfConfig) -> HfConfig:
    if generation.get("do_sample"):
        return generation
    return generation | {"temperature": 0.0}


def check_tokenizer(loaded: LoadedModel, exported: LoadedModel, texts: Sequence[str]) -> None:
    """Raise TrainerError if the exported tokenizer differs in tokens, end tokens or template."""
    ours, theirs = loaded.tokenizer, exported.tokenizer
    same_tokens = all(ours(text)["input_ids"] == theirs(text)["input_ids"] for text in texts)
    same_template = ours.chat_template == theirs.chat_template
    if not (same_tokens and same_template and set(loaded.stop_ids) == set(exported.stop_ids)):
        raise TrainerError(
            "The exported tokenizer is not the tuned model's: it gives other tokens, end tokens or"
            " another chat template.",
            fix="please report this with the model's name; the adapter itself is unchanged.",
        )
