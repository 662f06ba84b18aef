"""Write an adapter by itself, in PEFT's layout, which peft and vLLM read beside its base model.

An adapter is right on the very weights that it was trained on. Its folder names them: by the hub id
that they came from, or as `--base` says. A name that only this machine knows is refused.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from local_backend.errors import TrainerError
from local_backend.export.merged import TORCH_DTYPES, check_tokenizer
from local_backend.export.options import ExportOptions
from local_backend.export.proof import Proof, compare_outputs, run_prompts
from local_backend.export.tuned_model import TunedModel
from local_backend.models.load_model import LoadedModel, load_model
from local_backend.models.load_tokenizer import load_tokenizer
from local_backend.models.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, load_adapter
from local_backend.models.weights import as_safetensors_folder

README = "README.md"
BASE_NAME = "base_model_name_or_path"
NOT_COPIED = (ADAPTER_WEIGHTS, ADAPTER_CONFIG, README)


def write_adapter(tuned: TunedModel, folder: Path, options: ExportOptions) -> Proof:
    """Write the adapter into `folder`; return the proof that it makes the tuned model of its base.

    Raise TrainerError.
    """
    expected = run_prompts(tuned.loaded, tuned.prompts)
    base = options.base or tuned.base
    for path in sorted(tuned.folder.iterdir()):
        if path.is_file() and path.name not in NOT_COPIED:
            shutil.copyfile(path, folder / path.name)
    tensors = load_file(tuned.folder / ADAPTER_WEIGHTS)
    converted = {name: value.to(TORCH_DTYPES[options.dtype]) for name, value in tensors.items()}
    save_file(converted, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config = json.loads((tuned.folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    text = json.dumps(config | {BASE_NAME: base}, indent=2, ensure_ascii=False)
    (folder / ADAPTER_CONFIG).write_text(f"{text}\n", encoding="utf-8")
    (folder / README).write_text(describe_base(tuned, base), encoding="utf-8")
    exported = _read_back(tuned, folder, options)
    check_tokenizer(tuned.loaded, exported, tuned.texts)
    comparison = compare_outputs(expected, run_prompts(exported, tuned.prompts), options.dtype)
    return {**comparison, "heldOut": tuned.role, "format": "adapter", "differsInOlderReaders": []}


def check_base(base: str, method: str, options: ExportOptions) -> None:
    """Raise TrainerError for a job without an adapter, or a base that has no name elsewhere."""
    if method == "full":
        raise TrainerError(
            "The job trained all weights: there is no adapter.", fix="use --format merged."
        )
    if options.base is None and Path(base).is_dir():
        raise TrainerError(
            f"The adapter was trained on the weights in {base}, and that name means nothing on"
            " another machine.",
            fix="add --base with the folder or hub id of these very weights where the adapter will"
            f" be used (--base {base} for this machine), or use --format merged.",
        )


def _read_back(tuned: TunedModel, folder: Path, options: ExportOptions) -> LoadedModel:
    """Load the written adapter on its base: on the named one, if that is a folder here."""
    named = options.base
    is_here = named is not None and Path(named).is_dir()
    source = str(as_safetensors_folder(Path(str(named)))) if is_here else tuned.base
    loaded = load_model(source, torch.float32, torch.device("cpu"))
    load_adapter(loaded.model, folder)
    loaded.tokenizer = load_tokenizer(str(folder))[0]
    loaded.model.eval()
    return loaded


def describe_base(tuned: TunedModel, base: str) -> str:
    """Return the text of README.md: what the adapter belongs to."""
    lines = [
        "---",
        f"base_model: {json.dumps(base)}",
        "library_name: peft",
        "---",
        f"LoRA adapter of {base}, in PEFT's layout.",
        "",
        f"It was trained on the weights of {tuned.settings.model_name}. On other weights (another"
        " quantization of the same model, for example) it is another model. The tokenizer and the"
        " chat template of its training are in this folder.",
        "",
    ]
    return "\n".join(lines)
