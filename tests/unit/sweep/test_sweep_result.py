"""What a sweep concludes: the best, its gain against the spread of seeds, edges, importance."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("optuna")

from cloudft.sweep.importance import MIN_TRIALS, measure_importance
from cloudft.sweep.pruning import Point, is_behind
from cloudft.sweep.records import Outcome, TrialRecord
from cloudft.sweep.result import (
    choose_best,
    estimate_seconds_left,
    find_edges,
    find_own,
    judge,
    rank_trials,
    summarize_pruning,
    summarize_repeats,
)
from cloudft.sweep.space import SpaceParameter

RATE = SpaceParameter(
    "learningRate", ("hyperparameters", "learningRate"), "float", 1e-5, 1e-2, True
)
DROPOUT = SpaceParameter("local.lora.dropout", ("local", "lora", "dropout"), "float", 0.0, 0.3)
RANK = SpaceParameter("local.lora.r", ("local", "lora", "r"), "int", values=(4, 8, 16))


def trial(
    number: int, score: float | None, outcome: Outcome = "complete", **values: float
) -> TrialRecord:
    return TrialRecord(number, values, 7, outcome, score, seconds=2.0)  # type: ignore[arg-type]


def repeat(
    number: int, seed: int, score: float | None, outcome: Outcome = "complete"
) -> TrialRecord:
    return TrialRecord(number, {}, seed, outcome, score)


def test_a_gain_above_the_spread_between_seeds_is_named() -> None:
    own, best = trial(0, 2.0), trial(1, 1.0)
    repeats = [repeat(0, 8, 2.1), repeat(0, 9, 1.9), repeat(1, 8, 1.1), repeat(1, 9, 1.2)]
    repeated = summarize_repeats([own, best], repeats)
    verdict = judge(best, own, repeated)
    assert verdict.is_clear and verdict.gain == pytest.approx(2.0 - 1.15)
    assert verdict.spread == pytest.approx(0.2)
    assert "0.8500 lower" in verdict.text


def test_a_gain_within_the_spread_between_seeds_is_none() -> None:
    """The run that made it the best was a lucky one: it does not count."""
    own, best = trial(0, 2.0), trial(1, 1.0)
    repeats = [repeat(0, 8, 2.1), repeat(0, 9, 1.9), repeat(1, 8, 2.0), repeat(1, 9, 1.8)]
    verdict = judge(best, own, summarize_repeats([own, best], repeats))
    assert verdict.is_clear is False and verdict.gain == pytest.approx(0.1)
    assert verdict.text.startswith("the spread between seeds is larger than the gain")


def test_without_further_seeds_a_gain_may_be_chance() -> None:
    verdict = judge(trial(1, 1.0), trial(0, 2.0), [])
    assert verdict.gain == 1.0 and verdict.is_clear is None and "chance" in verdict.text


def test_nothing_better_than_the_own_values_is_said() -> None:
    own = trial(0, 1.0)
    assert "nothing that was tried is better" in judge(own, own, []).text
    assert "no trial has a score" in judge(None, own, []).text
    assert "have no score" in judge(trial(1, 1.0), trial(0, None, "diverged"), []).text


def test_of_repeated_trials_the_lower_mean_is_the_best() -> None:
    lucky, steady = trial(1, 1.0), trial(2, 1.1)
    repeats = [repeat(1, 8, 3.0), repeat(2, 8, 1.2)]
    chosen = choose_best([lucky, steady], summarize_repeats([lucky, steady], repeats))
    assert chosen is steady


def test_values_that_diverge_with_another_seed_are_no_choice() -> None:
    wild, steady = trial(1, 1.0), trial(2, 1.5)
    repeats = [repeat(1, 8, 0.9), repeat(1, 9, None, "diverged"), repeat(2, 8, 1.6)]
    assert choose_best([wild, steady], summarize_repeats([wild, steady], repeats)) is steady


def test_only_what_was_trained_to_its_end_has_a_rank() -> None:
    trials = [
        trial(0, 2.0),
        trial(1, None, "pruned"),
        trial(2, None, "diverged"),
        TrialRecord(3, {}, 7, "complete", 1.0, same_as=0),
        trial(4, 1.5),
    ]
    assert [one.number for one in rank_trials(trials)] == [4, 0]


def test_the_own_values_are_found_by_value_or_by_number() -> None:
    trials = [trial(0, 1.0, learningRate=0.1), trial(1, 1.0, learningRate=0.2)]
    assert find_own(trials, {"learningRate": 0.2}) is trials[1]
    assert find_own([trial(-1, 1.0), *trials], {"learningRate": 5.0}).number == -1  # type: ignore[union-attr]
    assert find_own(trials, {"learningRate": 5.0}) is None


def test_a_best_on_the_edge_is_named_with_its_side() -> None:
    best = trial(1, 1.0, **{"learningRate": 9e-3, "local.lora.r": 8})
    [edge] = find_edges((RATE, RANK), best)
    assert (edge.name, edge.side) == ("learningRate", "high")


def test_pruning_saves_what_a_complete_trial_takes_longer() -> None:
    trials = [TrialRecord(0, {}, 7, "complete", 1.0, seconds=10.0)]
    trials += [TrialRecord(n, {}, 7, "pruned", seconds=4.0) for n in (1, 2)]
    saved = summarize_pruning(trials)
    assert (saved.trials, saved.saved_seconds) == (2, 12.0)


def scored_trials(count: int, *, pruned: int = 0) -> list[TrialRecord]:
    """Return trials whose score the learning rate moves far more than the others."""
    draw = random.Random(3)
    found = []
    for number in range(count + pruned):
        rate, dropout = 10 ** draw.uniform(-5, -2), draw.uniform(0, 0.3)
        score = (math.log10(rate) + 3) ** 2 + 0.05 * dropout
        values = {"learningRate": rate, "local.lora.dropout": dropout}
        outcome: Outcome = "complete" if number < count else "pruned"
        kept = score if outcome == "complete" else None
        found.append(TrialRecord(number, values, 7, outcome, kept))  # type: ignore[arg-type]
    return found


def test_the_parameter_that_moves_the_score_comes_first() -> None:
    importance = measure_importance((DROPOUT, RATE), scored_trials(24, pruned=10))
    assert [one.name for one in importance.parameters] == ["learningRate", "local.lora.dropout"]
    assert importance.parameters[0].share > 0.7
    assert (importance.method, importance.trials) == ("fANOVA", 24)


def test_too_few_complete_trials_say_nothing() -> None:
    importance = measure_importance((DROPOUT, RATE), scored_trials(MIN_TRIALS - 1, pruned=30))
    assert importance.parameters == [] and importance.trials == MIN_TRIALS - 1
    assert "too few to say" in (importance.reason or "") and "pruning" in (importance.reason or "")
    whole = measure_importance((DROPOUT, RATE), scored_trials(MIN_TRIALS - 1))
    assert "pruning" not in (whole.reason or ""), "no trial was pruned"


def test_equal_scores_say_nothing() -> None:
    trials = scored_trials(20)
    for one in trials:
        one.score = 1.0
    assert measure_importance((DROPOUT, RATE), trials).reason is not None


def curve(*losses: float, batch: int = 8) -> list[Point]:
    return [Point((n + 1) * batch, (n + 1) / len(losses), loss) for n, loss in enumerate(losses)]


OTHERS = [curve(3.0, 2.0, 1.0), curve(3.1, 2.1, 1.1), curve(3.2, 2.2, 1.2)]


@pytest.mark.parametrize(
    ("points", "others", "is_pruned"),
    [
        (curve(5.0, 4.0, 3.0)[:2], OTHERS, True),
        (curve(5.0, 2.05, 3.0)[:2], OTHERS, False),
        (curve(2.0, 4.0, 3.0)[:2], OTHERS, False),
        (curve(5.0, 4.0, 3.0)[:2], OTHERS[:2], False),
        (curve(5.0, 4.0, 3.0), OTHERS, False),
        ([Point(2, 0.01, 9.0)], OTHERS, False),
        ([], OTHERS, False),
        # Twice as many epochs: behind at the same record, ahead at the same share.
        ([Point(8, 1 / 6, 2.9), Point(16, 1 / 3, 2.5)], OTHERS, False),
    ],
    ids=["behind", "even", "best so far", "too few", "at its end", "warm-up", "none", "longer"],
)
def test_a_run_is_stopped_where_it_is_behind_the_median(
    points: list[Point], others: list[list[Point]], is_pruned: bool
) -> None:
    assert is_behind(points, others) is is_pruned


def rest_of(result: Any, *, trials: int = 6, repeats: int = 4, minutes: float | None = None) -> Any:
    return estimate_seconds_left(result, trials=trials, repeats=repeats, budget_minutes=minutes)


def test_the_rest_of_a_sweep_is_estimated_by_its_complete_trials() -> None:
    done = [trial(0, 2.0), trial(1, 1.0), trial(2, None, "pruned"), trial(3, None, "running")]
    result = SimpleNamespace(trials=done, trials_done=3, repeats=[repeat(0, 8, 2.0)], seconds=8.0)
    assert rest_of(result) == (3 + 3) * 2.0
    assert rest_of(result, minutes=0.2) == 12.0 - 8.0
    assert rest_of(result, minutes=0.1) == 0.0
    result.trials = done[2:]
    assert rest_of(result) is None, "no trial is complete: nothing is known"
