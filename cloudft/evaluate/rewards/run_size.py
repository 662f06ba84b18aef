"""The size of a whole reinforcement run: answers, and what an hour of it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cloudft.backends import TRAINING_BACKENDS, make_backend
from cloudft.catalogue import CUSTOMIZATION_TYPES
from cloudft.spec.load import LoadedJob
from cloudft.storage.home import Home
from cloudft.types import DataVolume

DEFAULTS = {"epochCount": 2, "trainingSamplePerPrompt": 4}
"""Bedrock's where the job names none. Source: Bedrock user guide, "Reinforcement fine-tuning", its
sample request and the documented number of answers a prompt, 2026-11."""


@dataclass(frozen=True)
class RunSize:
    """How many answers a run samples. `prompts` is None where the data was not read."""

    epochs: int
    samples: int
    prompts: int | None

    @classmethod
    def of_job(cls, job: LoadedJob, prompts: int | None) -> RunSize:
        """Return the size by the job's hyperparameters, or Bedrock's defaults."""
        section = job.spec.reinforcement
        given = DEFAULTS | (dict(section.hyperparameters) if section else {})
        return cls(int(given["epochCount"]), int(given["trainingSamplePerPrompt"]), prompts)

    @property
    def answers(self) -> int | None:
        """Return how many answers are sampled and graded; None where that is not known."""
        return None if self.prompts is None else self.epochs * self.samples * self.prompts


def hourly_prices(job: LoadedJob, home: Home) -> list[dict[str, Any]]:
    """Return what an hour of training costs on each backend that bills this type by the hour."""
    prices = []
    nothing = {"train": DataVolume(0, 0, 0)}
    for name in TRAINING_BACKENDS:
        backend = make_backend(name, home)
        if (
            not backend.training_is_billed
            or name not in CUSTOMIZATION_TYPES[job.spec.customization_type].trains_on
        ):
            continue
        for part in backend.estimate(job, nothing).parts:
            if part.unit == "hour" and part.price is not None:
                price = part.price
                prices.append(
                    {
                        "backend": name,
                        "usdPerHour": price.usd,
                        "source": price.source,
                        "date": price.date,
                    }
                )
    return prices
