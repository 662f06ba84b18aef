"""Write the GRPO losses and gradients of TRL that tests compare the trainer's with.

    pip install trl==1.16.0
    python tools/trl_policy_losses.py > tests/unit/local_backend/training/trl_policy_losses.json

The model's weights come from numpy's generator, which gives the same numbers everywhere. TRL itself
is no dependency of the tests.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from policy_cases import CASES, PROMPTS, ROWS, build_model, summarize_gradients


def make_trainer(model: Any, case: dict[str, Any]) -> Any:
    """Return a trainer of TRL with the case's settings; nothing is generated."""
    import tiny
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    options = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=len(ROWS),
        num_generations=len(ROWS) // len(PROMPTS),
        max_completion_length=case["max_new_tokens"],
        loss_type=case["loss_type"],
        epsilon=case["epsilon"],
        temperature=case["temperature"],
        num_iterations=2 if case["has_old"] else 1,
        use_cpu=True,
        bf16=False,
        report_to=[],
        disable_dropout=True,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=options,
        train_dataset=Dataset.from_list([{"prompt": "x"}] * len(ROWS)),
        processing_class=tiny.build_tokenizer(),
    )
    # Set now: with a beta of its own the trainer would load a reference model.
    trainer.beta = case["beta"]
    return trainer


def pad(rows: list[list[float]], value: float, *, left: bool = False) -> Any:
    """Return rows of different lengths as a tensor."""
    import torch

    longest = max(map(len, rows))
    padded = [
        [value] * (longest - len(row)) + row if left else row + [value] * (longest - len(row))
        for row in rows
    ]
    return torch.tensor(padded)


def compute(case: dict[str, Any]) -> dict[str, Any]:
    """Return TRL's loss of a case, and a summary of each gradient."""
    import torch

    model = build_model()
    trainer = make_trainer(model, case)
    prompts = [list(PROMPTS[row["prompt"]]) for row in ROWS]
    answers = [list(row["answer"]) for row in ROWS]
    inputs = {
        "prompt_ids": pad(prompts, 0, left=True),
        "prompt_mask": pad([[1] * len(p) for p in prompts], 0, left=True),
        "completion_ids": pad(answers, 0),
        "completion_mask": pad([[1] * len(a) for a in answers], 0),
        "advantages": torch.tensor([row["advantage"] for row in ROWS]),
        "num_items_in_batch": torch.tensor(sum(map(len, answers))),
    }
    if case["has_old"]:
        inputs["old_per_token_logps"] = pad([row["old"] for row in ROWS], 0.0)
    if case["beta"]:
        inputs["ref_per_token_logps"] = pad([row["reference"] for row in ROWS], 0.0)
    trainer.current_gradient_accumulation_steps = 1
    model.train()
    loss = trainer._compute_loss(model, inputs)
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
