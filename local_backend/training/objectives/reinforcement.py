"""Reinforcement fine-tuning: learn which of one's own answers a grader prefers (GRPO)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from local_backend.data.chat_messages import Record
from local_backend.data.chat_template import RecordFormat, render_prompt
from local_backend.data.examples import EncodedData, Example
from local_backend.data.text_tokens import Segment
from local_backend.errors import TrainerError
from local_backend.settings import DataFile, Settings
from local_backend.training.loss_curve import perplexity
from local_backend.training.objectives.objective import Objective
from local_backend.training.reinforcement.prompts import (
    encode_prompts,
    render_segments,
    to_prompt_chat,
)

if TYPE_CHECKING:
    import torch

    from local_backend.data.batches import MicroBatchLimit
    from local_backend.models.token_losses import TokenLosses


class ReinforcementFineTuning(Objective):
    """Sample answers to each prompt, and make those more likely that are better than the others.

    Shao et al. 2024, "DeepSeekMath" (GRPO); the loss types are TRL's. What is minimized on held-out
    prompts is minus the mean reward.
    """

    customization_type = "REINFORCEMENT_FINE_TUNING"
    keeps_tokens = False
    """A prompt has what its grader gets beside its tokens."""

    def render(self, record: Record, record_format: RecordFormat) -> list[Segment]:
        """Return the prompt as segments without loss: the model itself writes the answers."""
        return render_segments(record, record_format)

    def render_prompt(self, record: Record, record_format: RecordFormat) -> str:
        """Return the prompt."""
        return render_prompt(record_format.tokenizer, to_prompt_chat(record))

    def encode(
        self, file: DataFile, settings: Settings, record_format: RecordFormat, max_length: int
    ) -> EncodedData:
        """Return the prompts. Raise TrainerError if too many are too long to be answered."""
        self.check(settings)
        return encode_prompts(file, settings, record_format, max_length)

    def check(self, settings: Settings) -> None:
        """Raise TrainerError for a job without a grader, and for settings that exclude others."""
        reinforcement = settings.reinforcement
        if reinforcement is None or settings.grader is None:
            raise TrainerError(
                "The job has no grader.", fix="name its file: `reinforcement: {grader: FILE.py}`."
            )
        if settings.processes not in (1, "auto") or settings.fsdp is True:
            raise TrainerError(
                "REINFORCEMENT_FINE_TUNING trains in one process: it samples answers and learns"
                " from them in turn.",
                fix="set local.processes: 1, and leave local.fsdp out.",
            )
        if settings.method == "full" and reinforcement.beta > 0:
            raise TrainerError(
                "local.reinforcement.beta compares with the base model, which local.method: full"
                " does not keep.",
                fix="set beta: 0, or use `method: lora`, whose base is the model without adapters.",
            )

    def largest_batch(
        self, examples: Sequence[Example], settings: Settings, limit: MicroBatchLimit
    ) -> Sequence[Example]:
        """Return the longest prompts, each with answers of the greatest length."""
        from local_backend.training.reinforcement.memory import largest_batch

        return largest_batch(examples, settings, limit)

    def count(self, examples: Sequence[Example]) -> int:
        """Return 1: the tokens' weights are those of the whole batch already."""
        return 1

    def loss(self, examples: Sequence[Example], losses: TokenLosses) -> torch.Tensor:
        """Return the policy's loss summed over sampled answers, a scalar."""
        from local_backend.training.reinforcement.policy_examples import (
            PolicyExample,
            policy_loss,
        )

        return policy_loss([e for e in examples if isinstance(e, PolicyExample)], losses)

    def metrics(self, mean_loss: float) -> dict[str, float]:
        """Return nothing: the curve shows what is known of the answers."""
        return {}

    def describe_sums(self, sums: Sequence[float]) -> dict[str, float]:
        """Return the means over held-out prompts of reward, length and entropy."""
        reward, length, entropy, count = sums
        return {
            "perplexity": perplexity(entropy / count),
            "reward": reward / count,
            "responseLength": length / count,
            "entropy": entropy / count,
        }

    def validation_result(self, loss: float) -> dict[str, object]:
        """Return the mean reward on held-out prompts, which is minus the loss."""
        return {"reward": -loss}

    def describe_validation(self, loss: float) -> str:
        """Return the mean reward as words."""
        return f"reward {-loss:.4f}"
