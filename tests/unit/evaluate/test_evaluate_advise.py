"""The recommendation that follows from the measurements, and the prompts that they need."""

from __future__ import annotations

import json

import pytest
from processes import Cli, JobFile

from cloudft.evaluate.advise import prompting
from cloudft.evaluate.advise.bm25 import Bm25Index, split_passages
from cloudft.evaluate.advise.recommendation import (
    DataFacts,
    MethodResult,
    break_even_requests,
    recommend,
    recommend_for_corpus,
)
from cloudft.evaluate.advise.run import compare_methods, measure_data_facts
from cloudft.evaluate.held_out import EvalExample, HeldOutData
from cloudft.evaluate.metrics.significance import compare_paired
from cloudft.evaluate.metrics.tasks import Task
from cloudft.evaluate.rewards.figures import (
    GradedAnswer,
    RewardFigures,
    RewardGroup,
    summarize_rewards,
)
from cloudft.inference import Prompt

PLENTY = DataFacts(train_records=500, noise=0.0, stale=0.0)


def measured(**scores: float) -> dict[str, MethodResult]:
    """Methods that are right in so many of 100 records, the same ones first."""
    found = {}
    for name, score in scores.items():
        each = [float(n < 100 * score) for n in range(100)]
        name = name.replace("_", "-")
        found[name] = MethodResult(name, score, each, 50, 5, 0.1)
    return found


@pytest.mark.parametrize(
    ("scores", "facts", "advice"),
    [
        ({"zero_shot": 0.1, "few_shot": 0.3, "fine_tuned": 0.9}, PLENTY, "fine-tune"),
        ({"zero_shot": 0.1, "few_shot": 0.9, "fine_tuned": 0.9}, PLENTY, "prompt"),
        ({"zero_shot": 0.9, "few_shot": 0.2, "fine_tuned": 0.92}, PLENTY, "prompt"),
        ({"zero_shot": 0.2, "few_shot": 0.3, "fine_tuned": 0.3}, PLENTY, "prompt"),
        (
            {"zero_shot": 0.2, "few_shot": 0.3, "fine_tuned": 0.3},
            DataFacts(60, 0.0, 0.0),
            "more data first",
        ),
        (
            {"zero_shot": 0.2, "few_shot": 0.3, "fine_tuned": 0.5},
            DataFacts(500, 0.4, 0.0),
            "more data first",
        ),
        (
            {"zero_shot": 0.1, "few_shot": 0.2, "retrieval": 0.8, "fine_tuned": 0.3},
            PLENTY,
            "retrieve",
        ),
        (
            {"zero_shot": 0.1, "few_shot": 0.2, "retrieval": 0.4, "fine_tuned": 0.9},
            PLENTY,
            "fine-tune",
        ),
        (
            {"zero_shot": 0.1, "few_shot": 0.2, "fine_tuned": 0.6},
            DataFacts(500, 0.0, 0.3),
            "retrieve",
        ),
    ],
)
def test_the_word_follows_from_what_was_measured(
    scores: dict[str, float], facts: DataFacts, advice: str
) -> None:
    found = measured(**scores)
    word = recommend(found, facts, compare_methods(found))
    assert word.advice == advice
    assert len(word.reasons) > len(found)


def figures(differing: int, groups: int) -> RewardFigures:
    """Return those of groups of two answers, of which so many have different rewards."""
    found = [
        RewardGroup("f", n, (GradedAnswer(1, 1), GradedAnswer(0, 2))) for n in range(differing)
    ]
    equal = [RewardGroup("f", n, (GradedAnswer(0.5, 1),) * 2) for n in range(groups - differing)]
    return summarize_rewards([*found, *equal])


@pytest.mark.parametrize(
    ("fine_tuned", "prompt", "differing", "advice"),
    [
        (0.3, 0.3, 6, "reinforce"),
        (0.3, 0.3, 4, "prompt"),  # half of the groups teach nothing
        (0.3, 0.3, 0, "prompt"),
        (0.9, 0.3, 6, "fine-tune"),  # labels teach it
        (0.8, 0.8, 6, "prompt"),  # good already
    ],
)
def test_reinforcement_is_named_where_labels_teach_nothing_and_rewards_differ(
    fine_tuned: float, prompt: float, differing: int, advice: str
) -> None:
    found = measured(zero_shot=0.2, few_shot=prompt, fine_tuned=fine_tuned)
    word = recommend(found, PLENTY, compare_methods(found), figures(differing, 8))
    assert word.advice == advice
    assert any("by the grader" in reason for reason in word.reasons) == (advice != "fine-tune")


def test_tuning_is_never_named_where_a_prompt_is_as_good() -> None:
    for prompt in range(0, 101, 10):
        for tuned in range(0, 101, 10):
            found = measured(zero_shot=0.0, few_shot=prompt / 100, fine_tuned=tuned / 100)
            word = recommend(found, PLENTY, compare_methods(found))
            assert (word.advice == "fine-tune") <= (tuned > prompt)


def test_a_corpus_is_worth_it_when_it_is_news_to_the_model() -> None:
    base = [1.0, 1.1, 0.9, 1.2] * 5
    news, known = [0.8 * b for b in base], [0.999 * b for b in base]
    better = compare_paired(base, news, lower_is_better=True)
    assert recommend_for_corpus(1.05, 0.84, better, 50_000).advice == "continue pre-training"
    same = compare_paired(base, known, lower_is_better=True)
    assert recommend_for_corpus(1.05, 1.049, same, 50_000).advice == "more data first"
    assert recommend_for_corpus(1.05, 1.049, same, 5_000_000).advice == "retrieve"


def test_answers_that_are_spelled_otherwise_do_not_contradict() -> None:
    train = (item("q", '{"sum": 100, "ok": true}'), item("q", '{"ok": true, "sum": 1e2}'))
    held_out = (item("q", '{"sum": 100.0, "ok": true}'), item("q", '{"sum": 100, "ok": 1}'))
    data = HeldOutData(held_out, train, "test", (), (), True)
    assert measure_data_facts(data, Task("json")) == DataFacts(2, 0.0, 0.5)


def test_requests_pay_training_back_only_when_they_are_cheaper() -> None:
    assert break_even_requests(100, 3, 1) == 50
    assert break_even_requests(100, 1, 1) is break_even_requests(100, 1, 2) is None


def item(requested: str, answer: str) -> EvalExample:
    return EvalExample(
        "k", "f", 1, Prompt([{"role": "user", "content": requested}]), requested, answer
    )


def test_what_is_requested_has_the_nearest_examples_and_passages_last() -> None:
    train = [
        item(f"Where is the {animal}?", f"In {animal}.") for animal in ("cat", "dog", "red hen")
    ]
    index = Bm25Index([one.input_text for one in train])
    requested = item("Is the red hen here?", "yes")
    turns = [m["content"] for m in prompting.few_shot_prompt(requested, train, index).messages]
    assert turns[-3:] == ["Where is the red hen?", "In red hen.", "Is the red hen here?"]
    documents = Bm25Index(split_passages(["The hen is red.\n\nThe cat sleeps.", "A dog. " * 200]))
    assert max(map(len, documents.texts)) < 800
    [message] = prompting.retrieval_prompt(requested, documents).messages
    assert message["content"].endswith("The hen is red.\n\nQuestion: Is the red hen here?")
    assert (
        prompting.retrieval_prompt(item("xyzzy", ""), documents).messages
        == item("xyzzy", "").prompt.messages
    )
    labels = Task("classification", ("yes", "no"))
    assert (
        prompting.zero_shot_prompt(requested, labels)
        .messages[-1]["content"]
        .endswith("alone: yes, no.")
    )
    assert Bm25Index(["a b"]).search("", 3) == []


def test_a_job_without_held_out_data_is_refused_before_it_is_trained(
    cli: Cli, job_file: JobFile
) -> None:
    done = cli("advise", job_file(records=8))
    assert done.returncode == 2 and "no held-out data" in done.stderr
    assert json.loads(cli("list", "--output", "json").stdout) == []
