"""Generate an answer and report it while its tokens are made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch

from local_backend.inference.answer_preview import AnswerPreview
from local_backend.inference.completion import (
    Prompt,
    Request,
    decode_completion,
    encode_prompt,
    generate_batch,
)
from local_backend.inference.model_variants import TUNED, ModelVariants
from local_backend.replies import Reply

if TYPE_CHECKING:
    from local_backend.models.load_model import LoadedModel

CANCELED = "canceled"
"""Finish reason of an answer that was stopped by a request."""


def stream_answers(
    models: ModelVariants, request: Request, reply: Reply, is_canceled: Callable[[], bool]
) -> None:
    """Generate an answer by each variant in turn, with the tokens that `answer_prompts` gets.

    Replies are `{"variant", "delta", "reasoning", "tokens"}` where there is new text, and one
    `{"variant", "text", "reasoning", "calls", "tokens", "promptTokens", "finishReason", "ids"}` at
    the end of each answer. `is_canceled` is called after each token. What was canceled ends with
    the finish reason `canceled`, and the variants after it are left out. Raise TrainerError.
    """
    torch.manual_seed(request.get("seed", 0))
    for name in request.get("variants", [TUNED]):
        with models.variant(name) as loaded:
            answer = StreamedAnswer(
                loaded, request["stream"], partial(_reply_for, reply, name), is_canceled
            )
            answer.generate(request)
        if answer.was_canceled:
            return


def _reply_for(reply: Reply, variant: str, **values: object) -> None:
    reply({"variant": variant, **values})


class StreamedAnswer:
    """One answer in the making."""

    def __init__(
        self,
        loaded: LoadedModel,
        prompt: Prompt,
        reply: Callable[..., None],
        is_canceled: Callable[[], bool],
    ) -> None:
        self.was_canceled = False
        self._loaded, self._prompt = loaded, prompt
        self._reply, self._is_canceled = reply, is_canceled
        self._prompt_ids = encode_prompt(loaded, prompt)
        self._preview = AnswerPreview(loaded, prompt)

    def generate(self, request: Request) -> None:
        """Generate the answer, and report it."""
        self.was_canceled = self._is_canceled()
        if self.was_canceled:
            ids: list[int] = []
        else:
            [ids] = generate_batch(
                self._loaded, [self._prompt_ids], request, on_step=self._take_step
            )
        completion = decode_completion(self._loaded, self._prompt, ids)
        self._report(len(ids), self._preview.finish(completion))
        if self.was_canceled:
            completion["finishReason"] = CANCELED
        self._reply(
            **completion, promptTokens=len(self._prompt_ids), ids=ids[: completion["tokens"]]
        )

    def _take_step(self, rows: torch.Tensor) -> bool:
        """Report the text of a new token; return whether the answer ends here."""
        ids = rows[0, len(self._prompt_ids) :].tolist()
        if ids[-1] not in self._loaded.stop_ids:
            self._report(len(ids), self._preview.advance(ids))
        self.was_canceled = self._is_canceled()
        return self.was_canceled

    def _report(self, tokens: int, new: tuple[str, str]) -> None:
        text, reasoning = new
        if text or reasoning:
            self._reply(delta=text, reasoning=reasoning, tokens=tokens)
