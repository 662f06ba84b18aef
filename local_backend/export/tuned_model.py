"""Load what is exported: a job's tuned model, and the prompts that its exports are proven on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from local_backend.data.encode import read_records
from local_backend.errors import TrainerError
from local_backend.job_dir import ARTIFACTS, MODEL, JobDir
from local_backend.models.load_model import LoadedModel, load_model, load_tuned_weights
from local_backend.models.load_tokenizer import load_tokenizer
from local_backend.models.weights import locate_weights
from local_backend.settings import Settings, read_settings
from local_backend.training.objectives import find_objective

PROOF_RECORDS = 8
PROOF_PROMPT_TOKENS = 512


@dataclass
class TunedModel:
    """A tuned model in float32 on the CPU, and the held-out prompts of its job.

    `base` is the model folder or hub id that training began from, `folder` has what training wrote
    (an adapter, or all weights). `role` names the data that `texts` come from; `prompts` are their
    tokens.
    """

    settings: Settings
    base: str
    folder: Path
    loaded: LoadedModel
    role: str
    texts: list[str]
    prompts: list[list[int]]


def tuned_folder(job_dir: JobDir) -> Path:
    """Return the folder that training wrote. Raise TrainerError where there is none yet."""
    folder = job_dir / ARTIFACTS / MODEL
    if not folder.is_dir():
        raise TrainerError("The job has no tuned model yet.", fix="wait until it is Completed.")
    return folder


def load_tuned_model(job_dir: JobDir) -> TunedModel:
    """Load a job's tuned model, its adapter not merged. Raise TrainerError."""
    settings, folder = read_settings(job_dir), tuned_folder(job_dir)
    base = locate_weights(settings.model_name, settings.weights)
    loaded = load_model(base, torch.float32, torch.device("cpu"))
    load_tuned_weights(folder, loaded, settings.method)
    loaded.tokenizer = load_tokenizer(str(folder))[0]
    role, texts, prompts = load_held_out_prompts(settings, loaded)
    return TunedModel(settings, base, folder, loaded, role, texts, prompts)


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
