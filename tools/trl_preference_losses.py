r"""Write the losses and gradients of TRL's preference trainers that tests compare ours with.

    pip install trl==1.16.0
    python tools/trl_preference_losses.py \
        > tests/unit/local_backend/training/trl_preference_losses.json

TRL itself is no dependency of the tests. Of ORPO only the term of the odds is TRL's: its likelihood
term has the prompt's tokens too, so the chosen answers' mean log-probabilities, which TRL's own
forward pass gives, take its place.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from policy_cases import build_model, summarize_gradients
from preference_cases import CASES, PAIRS


def options(case: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that all configurations of TRL have."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": len(PAIRS),
        "beta": case["beta"],
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "disable_dropout": True,
        "max_length": 64,
    }


def tokenizer() -> Any:
    """Return a tokenizer with a padding token, which the trainers need."""
    import tiny

    built = tiny.build_tokenizer()
    built.pad_token = built.eos_token
    return built


def dataset() -> Any:
    """Return texts that a trainer can be made with; they are not used."""
    from datasets import Dataset

    return Dataset.from_list([{"prompt": "x", "chosen": "y", "rejected": "z"}] * len(PAIRS))


def dpo_loss(model: Any, case: dict[str, Any]) -> Any:
    """Return the loss of DPOTrainer on the pairs, with their reference log-probabilities."""
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    # Else the trainer would load a reference model.
    precomputed = {"precompute_ref_log_probs": True}
    config = DPOConfig(**options(case), **precomputed)
    trainer = DPOTrainer(
        model=model,
        args=config,
        train_dataset=dataset(),
        processing_class=tokenizer(),
    )
    rows = [
        {
            "prompt_ids": pair["prompt"],
            "chosen_ids": pair["chosen"],
            "rejected_ids": pair["rejected"],
            "ref_chosen_logps": pair["reference"][0],
            "ref_rejected_logps": pair["reference"][1],
        }
        for pair in PAIRS
    ]
    inputs = DataCollatorForPreference(pad_token_id=0)(rows)
    trainer.model.train()
    return trainer.compute_loss(trainer.model, inputs)


def padded(name: str) -> dict[str, Any]:
    """Return one side of the pairs as the trainers of experimental take it."""
    import torch

    rows = [[*pair["prompt"], *pair[name]] for pair in PAIRS]
    longest = max(map(len, rows))
    ids = [row + [0] * (longest - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    labels = [
        [-100] * len(pair["prompt"]) + pair[name] + [-100] * (longest - len(row))
        for pair, row in zip(PAIRS, rows, strict=True)
    ]
    return {
        f"{name}_input_ids": torch.tensor(ids),
        f"{name}_attention_mask": torch.tensor(mask),
        f"{name}_labels": torch.tensor(labels),
    }


def reference_free_loss(model: Any, case: dict[str, Any]) -> Any:
    """Return the loss of CPOTrainer as SimPO, or that of ORPO with the odds of ORPOTrainer."""
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    batch = {**padded("chosen"), **padded("rejected")}
    further = {"train_dataset": dataset(), "processing_class": tokenizer()}
    if case["method"] == "simpo":
        config = CPOConfig(
            **options(case),
            loss_type="simpo",
            cpo_alpha=0.0,
            simpo_gamma=case["simpo_gamma"],
            label_smoothing=case["label_smoothing"],
        )
        trainer = CPOTrainer(model=model, args=config, **further)
        chosen, rejected, *_ = trainer.concatenated_forward(trainer.model, batch)
        return trainer.cpo_loss(chosen, rejected)[0].mean()
    trainer = ORPOTrainer(model=model, args=ORPOConfig(**options(case)), **further)
    chosen, rejected, *_ = trainer.concatenated_forward(trainer.model, batch)
    odds = trainer.odds_ratio_loss(chosen, rejected)[0]
    return (-chosen - odds).mean()


def compute(case: dict[str, Any]) -> dict[str, Any]:
    """Return TRL's loss of a case, and a summary of each gradient."""
    model = build_model()
    loss = (dpo_loss if case["method"] == "dpo" else reference_free_loss)(model, case)
    loss.backward()
    return {"loss": loss.item(), "gradients": summarize_gradients(model)}


def main() -> int:
    """Print the results by the name of the case, with the version of TRL."""
    import trl

    results = {name: compute(case) for name, case in sorted(CASES.items())}
    print(json.dumps({"trl": trl.__version__, "cases": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
