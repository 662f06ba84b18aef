"""Read the loss curve of a serverless job from its log.

The containers of Amazon Nova write the step, the loss and the learning rate as text. Open weights
report to an MLflow app alone, where there is one: their log has no curve (sagemaker-train 1.27.0,
cloudwatch_metrics.py and base_trainer.py, show_metrics).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

from cloudft.types import LogLine, Metric

NUMBER = r"(-?[0-9.]+(?:[eE][+-]?[0-9]+)?)"
STEP = re.compile(r"global_step[=:]\s*([0-9]+)")
LOSS = re.compile(rf"reduced_train_loss[=:]\s*{NUMBER}")
RATE = re.compile(rf"(?<![a-z_])lr[=:]\s*{NUMBER}")


def read_curve(lines: Iterable[LogLine], steps_per_epoch: int | None) -> Iterator[Metric]:
    """Yield a point for each step with a loss. Without steps per epoch, all are of epoch 0.

    A step that is logged again, on a machine that took over, counts as it was logged last.
    """
    points: dict[int, Metric] = {}
    for line in lines:
        step, loss = STEP.search(line.text), LOSS.search(line.text)
        if step is None or loss is None:
            continue
        rate = RATE.search(line.text)
        number, value = int(step[1]), float(loss[1])
        points[number] = Metric(
            step=number,
            epoch=number // steps_per_epoch if steps_per_epoch else 0,
            split="train",
            loss=value,
            perplexity=math.exp(min(value, 700.0)),
            learning_rate=float(rate[1]) if rate else None,
            tokens_per_second=None,
            timestamp="",
        )
    yield from (points[number] for number in sorted(points))
