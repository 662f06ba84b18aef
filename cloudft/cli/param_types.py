"""Define the ranges of numeric options. Both ends are set: nan, inf and 1e12 are refused."""

from __future__ import annotations

import math
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """A range of finite numbers. click's own accepts nan, which no comparison excludes."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or fail as click does."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


YEAR_S = 366 * 86400
SECONDS = FiniteRange(0, YEAR_S)
"""A waiting time: a year at most."""
HOURS = FiniteRange(0, 24 * 366, min_open=True)
DAYS = FiniteRange(0, 36_600)
USD = FiniteRange(0, 1e9)
SHARE = FiniteRange(0, 1, min_open=True, max_open=True)
WHOLE_SHARE = FiniteRange(0, 1)
"""A share that may be none or all."""
SIMILARITY = FiniteRange(0.5, 1)
MINUTES = FiniteRange(0, 1e6, min_open=True)
TRIALS = click.IntRange(1, 10_000)
TOKENS = click.IntRange(1, 1_000_000)
RECORDS = click.IntRange(1, 1_000_000_000)
SEED = click.IntRange(0, 2**32 - 1)
"""The seeds that NumPy and the job file accept."""
PORT = click.IntRange(0, 65535)
PID = click.IntRange(1, 2**31 - 1)
