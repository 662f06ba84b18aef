"""Preference optimization: learn the better of two answers, by DPO, SimPO or ORPO.

A pair is one example of two sequences, the chosen answer's before the rejected one's. Names,
defaults and formulas are those of TRL 1.16 (DPOConfig with the loss `sigmoid`; CPOConfig with the
loss `simpo` and without its term of the likelihood; ORPOConfig), with two differences. The
likelihood term of ORPO is of the chosen answer alone, as in its paper, where TRL takes the prompt's
tokens as well. And `label_smoothing` with DPO is that of conservative DPO, as it is with SimPO:
TRL's loss `sigmoid` ignores it, and its loss `robust` has no lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from local_backend.data.chat_messages import Conversation, Record, Turn, to_chat
from local_backend.data.chat_template import RecordFormat, render_prompt, split_turns
from local_backend.data.encode import StagedLines, render_records
from local_backend.data.examples import EncodedData, Example
from local_backend.data.text_tokens import Segment, tokenize_segments
from local_backend.errors import TrainerError
from local_backend.settings import PreferenceSettings, Settings
from local_backend.training.objectives.objective import Objective

if TYPE_CHECKING:
    import torch

    from local_backend.models.token_losses import TokenLosses

METHODS = ("dpo", "simpo", "orpo")
DEFAULTS = PreferenceSettings("dpo", beta=0.1, label_smoothing=0.0, simpo_gamma=0.5)
ROWS = 2
"""Sequences of a pair."""


class PreferenceOptimization(Objective):
    """Learn pairs of answers. The loss is a mean over pairs, however long their answers are."""

    customization_type = "PREFERENCE_OPTIMIZATION"
    rows_per_record = ROWS
    sum_count = 6

    def __init__(self, settings: PreferenceSettings = DEFAULTS) -> None:
        super().__init__()
        self.settings = settings

    def for_job(self, settings: Settings) -> PreferenceOptimization:
        """Return the objective with a job's method and its parameters. Raise TrainerError."""
        chosen = settings.preference or DEFAULTS
        if chosen.method not in METHODS:
            raise TrainerError(
                f"The trainer has no preference method {chosen.method!r}.",
                fix=f"set preference.method to {' or '.join(METHODS)}.",
            )
        return PreferenceOptimization(chosen)

    @property
    def needs_reference(self) -> bool:
        """Return whether the loss compares with the model that training starts from."""
        return self.settings.method == "dpo"

    def render(self, record: Record, record_format: RecordFormat) -> list[Segment]:
        """Return the prompt with the chosen answer, which alone has loss."""
        return self.render_rows(record, record_format)[0]

    def render_rows(self, record: Record, record_format: RecordFormat) -> list[list[Segment]]:
        """Return the prompt with the chosen answer, then with the rejected one."""
        return [
            split_turns(
                record_format.tokenizer,
                to_chat(_with_answer(record, name), "converse"),
                record_format.stop_texts,
            )
            for name in ("chosen", "rejected")
        ]

    def render_prompt(self, record: Record, record_format: RecordFormat) -> str:
        """Return the prompt of both answers."""
        chat = to_chat(_with_answer(record, None), "converse")
        return render_prompt(record_format.tokenizer, chat)

    def encode_lines(
        self, lines: StagedLines, record_format: RecordFormat, max_length: int
    ) -> EncodedData:
        """Return one example of two sequences for each pair. Raise TrainerError as Objective does.

        A pair is left out if an answer is cut off, or if both are equal as far as they are kept.
        """
        encoded = EncodedData([], lines.count)
        records = render_records(lines, lambda record: self.render_rows(record, record_format))
        rows = tokenize_segments((row for pair in records for row in pair), record_format.tokenizer)
        for chosen, rejected in zip(rows, rows, strict=True):
            encoded.add_rows([chosen, rejected], max_length)
        return encoded

    def count(self, examples: Sequence[Example]) -> int:
        """Return the number of pairs."""
        return len(examples)

    def loss(self, examples: Sequence[Example], losses: TokenLosses) -> torch.Tensor:
        """Return the loss summed over the pairs, and add their rewards to the sums."""
        # Imported here: who renders records needs no torch.
        from local_backend.training.objectives.preference_loss import sum_pair_losses

        pairs = [e for e in examples if e.row_count == ROWS]
        references = [e.reference for e in pairs] if self.needs_reference else None
        loss, sums = sum_pair_losses(losses.by_row(), len(pairs), references, self.settings)
        if sums is not None:
            self.add_to_sums(sums)
        return loss

    def metrics(self, mean_loss: float) -> dict[str, float]:
        """Return nothing: what the curve shows is not made of the loss."""
        return {}

    def describe_sums(self, sums: Sequence[float]) -> dict[str, float]:
        """Return the perplexity of the chosen answers, the mean rewards, and how often it is right.

        A reward is beta times the log-probability of an answer, relative to the reference where the
        method has one.
        """
        loss, tokens, chosen, rejected, correct, pairs = sums
        return {
            "perplexity": math.exp(min(loss / tokens, 700.0)),
            "chosenReward": chosen / pairs,
            "rejectedReward": rejected / pairs,
            "rewardMargin": (chosen - rejected) / pairs,
            "preferenceAccuracy": correct / pairs,
        }


def _with_answer(record: Record, name: str | None) -> Conversation:
    """Return the conversation with one of the answers, whose turns alone are learned."""
    prompt = cast("list[Turn]", record["prompt"])
    turns = [cast("Turn", {**turn, "weight": 0}) for turn in prompt]
    answer = cast("list[Turn]", record[name]) if name else []
    kept = {key: value for key, value in record.items() if key in ("system", "toolConfig")}
    return cast("Conversation", {**kept, "messages": [*turns, *answer]})
