"""Export one merged model, verified: `python -m local_backend.inference.export JOB_DIR OUT`.

The merged weights are written, read back from disk, and run on the job's held-out records. Their
logits must equal the adapter model's within a tolerance, and greedy decoding must give equal
tokens. Otherwise nothing is left at OUT. The folder's configuration is written for transformers 4
and 5, and the proof names what an older reader would take otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch

from local_backend.atomic_folders import atomic_folder
from local_backend.data.encode import read_records
from local_backend.disk_full import raise_on_full_disk
from local_backend.errors import TrainerError
from local_backend.inference.completion import generate_batch
from local_backend.job_dir import ARTIFACTS, MODEL, JobDir, write_json
from local_backend.libraries import silence_libraries
from local_backend.models import merge_proof
from local_backend.models.load_model import (
    LoadedModel,
    load_model,
    load_tuned_weights,
)
from local_backend.models.load_tokenizer import load_tokenizer
from local_backend.models.portable_config import (
    copy_sentencepiece_model,
    older_reader_differences,
    write_portable_config,
)
from local_backend.models.weights import locate_weights
from local_backend.process_exit import exit_now, exit_with_parent
from local_backend.settings import Settings, read_settings
from local_backend.training.objectives import find_objective

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROOF = "export.json"
PROOF_RECORDS = 8
PROOF_PROMPT_TOKENS = 512
PROOF_NEW_TOKENS = 32
TOLERANCE = {"float32": 1e-3, "bfloat16": 1.0, "float16": 0.1}
"""Largest allowed difference of a logit. Merging changes the order of float additions and, in the
shorter formats, rounds each weight; logits are of the order of 10.
"""
DISK_REMEDY = "free some space there, or name a folder on another disk."
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Comparison(TypedDict):
    """How far the merged model is from the tuned one, on some records."""

    dtype: str
    records: int
    maxLogitDifference: float
    tolerance: float
    equalGreedyAnswers: int


class Proof(Comparison):
    """export.json: a comparison that passed, and the data role of its records.

    `differsInOlderReaders` names the keys of config.json (or `tokenizer`) that transformers 4, and
    tools that read its names, would take otherwise.
    """

    heldOut: str
    format: str
    differsInOlderReaders: list[str]


def export_merged_model(job_dir: JobDir, out: Path, dtype: str) -> Proof:
    """Write the merged model to `out` and return the proof.

    Raise TrainerError if `out` exists, or if verification fails.
    """
    settings = read_settings(job_dir)
    adapter = job_dir / ARTIFACTS / MODEL
    if not adapter.is_dir():
        raise TrainerError("The job has no tuned model yet.", fix="wait until it is Completed.")
    if os.path.lexists(out):
        raise exists_error(out)
    cpu = torch.device("cpu")
    base = locate_weights(settings.model_name, settings.weights)
    loaded = load_model(base, torch.float32, cpu)
    load_tuned_weights(adapter, loaded, settings.method)
    loaded.tokenizer = load_tokenizer(str(adapter))[0]
    role, texts, prompts = load_held_out_prompts(settings, loaded)
    expected = run_prompts(loaded, prompts)
    try:
        with (
            raise_on_full_disk("The merged model", out, DISK_REMEDY),
            atomic_folder(out) as temporary,
        ):
            merge_proof.merge_adapters(loaded.model)
            convert_weights(loaded.model, DTYPES[dtype])
            loaded.model.save_pretrained(temporary)
            loaded.tokenizer.save_pretrained(temporary)
            write_portable_config(temporary, loaded.tokenizer, loaded.stop_ids)
            copy_sentencepiece_model(base, temporary)
            # Read back from disk: what is proven is what will be used, not what is in memory.
            exported = load_model(str(temporary), torch.float32, cpu)
            check_tokenizer(loaded, exported, texts)
            comparison = compare_outputs(expected, run_prompts(exported, prompts), dtype)
            proof: Proof = {
                **comparison,
                "heldOut": role,
                "format": "safetensors",
                "differsInOlderReaders": older_reader_differences(
                    temporary, loaded.tokenizer, texts
                ),
            }
            write_json(temporary / PROOF, proof)
    except FileExistsError as error:
        raise exists_error(out) from error
    return proof


def exists_error(out: Path) -> TrainerError:
    """Return the error for an OUT that exists, or has appeared meanwhile. It is not touched."""
    return TrainerError(f"{out} exists already.", fix="name a folder that does not exist.")


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


def load_held_out_prompts(
    settings: Settings, loaded: LoadedModel
) -> tuple[str, list[str], list[list[int]]]:
    """Return the data role of the proof's records, and the text and tokens of each one's prompt."""
    role = next(name for name in ("test", "validation", "train") if name in settings.data)
    objective = find_objective(settings.customization_type)
    record_format = loaded.record_format(settings.format)
    texts, prompts = [], []
    for record in islice(read_records(settings.data[role].path), PROOF_RECORDS):
        text = objective.render_prompt(record, record_format)
        ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        texts.append(text)
        prompts.append(ids[:PROOF_PROMPT_TOKENS])
    return role, texts, prompts


ModelOutputs = list[tuple[torch.Tensor, list[int]]]
"""For each prompt the logits at every position, and the tokens of the greedy answer."""


def run_prompts(loaded: LoadedModel, prompts: Sequence[list[int]]) -> ModelOutputs:
    """Return for each prompt the logits at every position, and the greedy answer."""
    loaded.model.eval()
    loaded.model.config.use_cache = True
    outputs = []
    for ids in prompts:
        with torch.inference_mode():
            logits = loaded.model(input_ids=torch.tensor([ids])).logits[0].float()
        [answer] = generate_batch(loaded, [ids], {"maxNewTokens": PROOF_NEW_TOKENS})
        outputs.append((logits, answer))
    return outputs


def compare_outputs(expected: ModelOutputs, exported: ModelOutputs, dtype: str) -> Comparison:
    """Return the proof as numbers. Raise TrainerError if merged and adapter model differ."""
    differences = [
        float((a - b).abs().max()) for (a, _), (b, _) in zip(expected, exported, strict=True)
    ]
    equal = sum(a == b for (_, a), (_, b) in zip(expected, exported, strict=True))
    worst, allowed = max(differences), TOLERANCE[dtype]
    finer = "float16" if dtype == "bfloat16" else "float32"
    if not worst <= allowed or equal < len(expected):
        raise TrainerError(
            f"The merged model is not the tuned one: logits differ by up to {worst:.2g} (allowed"
            f" {allowed:g}), greedy answers agree on {equal} of {len(expected)} records.",
            fix=f"keep more digits: `cloudft export` or `cloudft import` with --dtype {finer}."
            if dtype != "float32"
            else "please report this with the model's name; the adapter itself is unchanged.",
        )
    return {
        "dtype": dtype,
        "records": len(expected),
        "maxLogitDifference": worst,
        "tolerance": allowed,
        "equalGreedyAnswers": equal,
    }


def main() -> int:
    """Export one job. Print the proof, or the error, as JSON on standard output.

    Other output (for example, a conversion of weights) goes to standard error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m local_backend.inference.export", description=__doc__
    )
    parser.add_argument("job_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when it is closed")
    args = parser.parse_args()
    if args.end_with_stdin:
        exit_with_parent()
    silence_libraries()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            proof = export_merged_model(JobDir(args.job_dir), args.out.resolve(), args.dtype)
        print(json.dumps(proof))
    except KeyboardInterrupt:
        return 1
    except TrainerError as error:
        print(json.dumps({"error": error.message, "fix": error.fix}))
        return 1
    return 0


if __name__ == "__main__":
    exit_now(main())
