"""Log-probabilities of a prompt's own tokens, taken as its parts go through the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from local_backend.serving.choose import ScoredToken


class PromptScores:
    """The scores of all tokens of a prompt but the first, which follows nothing.

    With each come the `top` likeliest tokens of its position.
    """

    def __init__(self, ids: Sequence[int], top: int) -> None:
        self.tokens: list[ScoredToken] = []
        self._next, self._top = list(ids[1:]), top

    def take(self, logits: torch.Tensor) -> None:
        """Take the logits [tokens, vocabulary] after the next tokens of the prompt.

        Those after the last one predict the answer, and score nothing.
        """
        done = len(self.tokens)
        following = self._next[done : done + len(logits)]
        if not following:
            return
        logprobs = logits[: len(following)].float().log_softmax(-1)
        at = torch.tensor(following, device=logits.device)
        own = logprobs.gather(1, at[:, None])[:, 0].tolist()
        best = logprobs.topk(min(self._top, logprobs.shape[1]))
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        self.tokens += [
            ScoredToken(token, logprob, tuple(zip(*row, strict=True)))
            for token, logprob, row in zip(following, own, rows, strict=True)
        ]
