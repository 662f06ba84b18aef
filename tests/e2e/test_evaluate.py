"""Evaluations of base and tuned model from the command line, with models that were trained."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
import yaml
from job_files import write_job_file
from processes import Cli, JobFile
from safetensors.torch import load_file, save_file

from cloudft.backends.local.backend import LocalBackend
from cloudft.cli.commands.compare import model_results
from cloudft.cli.commands.review import continue_cut_answers
from cloudft.cli.options import Console
from cloudft.evaluate.human_review.review import Review
from cloudft.inference import Prompt, ScoringRequest
from cloudft.storage.home import Home

RECORDS = [
    tiny.pair(f"Where is parcel {n} for {city}?", city) for n in range(5) for city in tiny.CITIES
]
HELD_OUT = [
    tiny.pair(f"Where is parcel {n} for {city}?", city) for n in (7, 8) for city in tiny.CITIES
]
LEARNED = {"epochCount": 24, "learningRate": 0.02}


@pytest.fixture
def evaluated(cli: Cli, job_file: JobFile) -> Any:
    """Return a function that trains and evaluates a job, and returns the JSON and the stderr."""

    def run(*options: str, code: int = 0, **changes: Any) -> tuple[Any, str]:
        path = job_file(records=changes.pop("records", RECORDS), **changes)
        tiny.write_jsonl(path.parent / "test.jsonl", HELD_OUT)
        done = cli("submit", path, "--wait", "--quiet", "--output", "json")
        assert done.returncode == 0, done.stderr
        done = cli("evaluate", "-", *options, "--output", "json", cwd=path.parent)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout), done.stderr

    return run


@pytest.fixture(scope="module")
def trained_home(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Return a home with one trained and quickly evaluated job."""
    folder = tmp_path_factory.mktemp("learnt")
    path = write_job_file(
        folder / "job",
        tiny_model,
        records=RECORDS,
        data={"test": "test.jsonl"},
        hyperparameters=LEARNED,
    )
    tiny.write_jsonl(path.parent / "test.jsonl", HELD_OUT)
    for words in (["submit", str(path), "--wait"], ["evaluate", "-"]):
        subprocess.run(
            [
                preloaded.interpreter_path(),
                "-m",
                "cloudft",
                *words,
                "--quiet",
                *(["--quick"] * (len(words) == 2)),
            ],
            env=os.environ | {"CLOUDFT_HOME": str(folder / "home")},
            check=True,
            capture_output=True,
        )
    return folder / "home"


@pytest.fixture
def trained_job(trained_home: Path, home: Path) -> Path:
    """Copy that home for one test, and return the job's folder."""
    shutil.copytree(trained_home, home)
    [job] = (home / "jobs").iterdir()
    return job


def test_tuning_is_reported_to_have_helped_and_known_answers_are_not_generated_again(
    evaluated: Any, cli: Cli, home: Path
) -> None:
    found, _ = evaluated(data={"test": "test.jsonl"}, hyperparameters=LEARNED)
    assert (found["task"], found["n"], found["metric"]) == ("classification", 16, "accuracy")
    assert found["tuned"]["accuracy"] > 0.8 > 0.4 > found["base"]["accuracy"]
    assert found["significance"]["verdict"] == "better"
    assert found["delta"]["accuracy"]["low"] > 0
    assert found["tuned"]["referenceLoss"] < found["base"]["referenceLoss"]
    assert found["identities"]["base"] != found["identities"]["tuned"]
    assert found["pitfalls"]["forgetting"]["questions"] >= 40
    assert {w["code"] for w in found["warnings"]} >= {"FewRecords"}
    kept = json.loads(Path(found["file"]).read_text())
    assert len(kept["records"]) == 16 and kept["records"][0]["tuned"]["correct"] in (True, False)

    answers = {path: path.read_bytes() for path in (home / "answers").iterdir()}
    again = cli("evaluate", "-", "--output", "json")
    second = json.loads(again.stdout)
    assert second["asked"] == {"base": 0, "tuned": 0}
    assert {name: second[name] for name in ("base", "tuned", "delta")} == {
        name: found[name] for name in ("base", "tuned", "delta")
    }
    torn = max(answers, key=lambda path: len(answers[path]))
    torn.write_bytes(answers[torn][: len(answers[torn]) // 2])  # as a kill leaves it
    third = json.loads(cli("evaluate", "-", "--output", "json").stdout)
    assert third["tuned"] == found["tuned"] and sum(third["asked"].values()) > 0
    text = cli("evaluate", "-").stdout
    assert "accuracy" in text and "The tuned model is better" in text


def test_a_leak_over_fitting_and_labels_never_seen_are_reported(evaluated: Any) -> None:
    validation = [tiny.pair(f"Where is parcel {n} for Lyon?", "Oslo") for n in range(20, 28)]
    found, said = evaluated(
        "--data",
        "train.jsonl",
        "--quick",
        records=RECORDS,
        validation=validation,
        hyperparameters={"epochCount": 20, "learningRate": 0.02},
    )
    assert {w["code"] for w in found["warnings"]} == {"LeakedTestSet"}
    assert said.count("40 of 40 held-out records are training records") == 1
    assert found["pitfalls"]["overfitting"]["level"] == "bad"


def test_a_leak_is_named_before_any_inference(cli: Cli, trained_job: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"base": "a", "tuned": "b"}\n')  # too few: evaluation ends there
    leaked = tmp_path / "leaked.jsonl"
    tiny.write_jsonl(leaked, RECORDS[:3])
    refused = cli("evaluate", trained_job.name, "--data", leaked, "--answers", answers)
    assert refused.returncode not in (0, 1)
    assert "3 of 3 held-out records are training records" in refused.stderr


def test_labels_without_meaning_bring_no_improvement(evaluated: Any) -> None:
    shuffled = [
        tiny.pair(record["prompt"], tiny.CITIES[(5 * n + n // 3) % 8])
        for n, record in enumerate(RECORDS)
    ]
    found, _ = evaluated("--quick", data={"test": "test.jsonl"}, records=shuffled)
    assert found["significance"]["verdict"] != "better"
    assert found["significance"]["sentence"].startswith("No ")


def test_pre_training_is_reported_in_bits_a_byte(evaluated: Any, cli: Cli, tmp_path: Path) -> None:
    tiny.write_jsonl(tmp_path / "job" / "held.jsonl", tiny.texts(90)[60:])
    found, _ = evaluated(
        "--data",
        "held.jsonl",
        records=tiny.texts(60),
        customization_type="CONTINUED_PRE_TRAINING",
        hyperparameters={"epochCount": 10},
    )
    assert (found["task"], found["metric"]) == ("language-modelling", "bitsPerByte")
    assert found["tuned"]["bitsPerByte"] < found["base"]["bitsPerByte"]
    assert found["significance"]["verdict"] == "better"
    assert found["pitfalls"]["forgetting"]["rise"] != 0
    assert "The tuned model is better: bits per byte " in found["significance"]["sentence"]
    assert cli("report", "-", "--out", tmp_path / "report.html").returncode == 0
    done = cli("compare", "base", found["job"], "--page", tmp_path / "compared.html")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "report.html").read_text() + (tmp_path / "compared.html").read_text()
    assert "<dt>Document</dt>" in text and "(nothing)" not in text and "bitsPerByte" not in text


def test_a_model_that_was_never_trained_is_its_base(trained_job: Path, cli: Cli) -> None:
    from safetensors.torch import load_file, save_file

    path = trained_job / "artifacts" / "model" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({n: t * 0 if "lora_B" in n else t for n, t in tensors.items()}, path)
    done = cli("evaluate", "-")
    assert done.returncode == 2 and "the tuned model is identical to its base" in done.stderr


def test_answers_from_elsewhere_are_scored_alike(
    trained_job: Path, cli: Cli, tmp_path: Path
) -> None:
    rows = [{"base": " \n", "tuned": record["completion"]} for record in HELD_OUT]
    path = tiny.write_jsonl(tmp_path / "answers.jsonl", rows)
    found = json.loads(cli("evaluate", "-", "--answers", path, "--output", "json").stdout)
    assert (found["base"]["accuracy"], found["tuned"]["accuracy"]) == (0.0, 1.0)
    assert "EmptyAnswers" in {w["code"] for w in found["warnings"]}
    for content, line in ((rows[:-1], "15 answers"), ([*rows[:-1], {"base": "x"}], "jsonl:16")):
        tiny.write_jsonl(path, content)
        done = cli("evaluate", "-", "--answers", path)
        assert done.returncode == 2 and line in done.stderr and "Traceback" not in done.stderr


def test_what_can_not_be_evaluated_is_refused(evaluated: Any, cli: Cli, tmp_path: Path) -> None:
    found, _ = evaluated(code=2)
    assert "no held-out data" in found["error"]["message"]
    (tmp_path / "empty.jsonl").write_text("")
    text = tiny.write_jsonl(tmp_path / "text.jsonl", [{"text": "Parcels."}])
    for path in (tmp_path / "empty.jsonl", tmp_path / "gone.jsonl", text):
        done = cli("evaluate", "-", "--data", path)
        assert done.returncode in (2, 3) and "Traceback" not in done.stderr, done.stderr
        assert "fix:" in done.stderr


def test_perplexity_is_the_straightforward_computation(
    tiny_model: Path, home: Path, cli: Cli, job_file: JobFile, preloaded_here: None
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = job_file()
    assert cli("submit", path, "--wait", "--quiet").returncode == 0
    [job] = (home / "jobs").iterdir()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval()
    texts = ["The parcel for Lyon is in Oslo. " * 20, "Where is it?", "x", ""]
    requested = ScoringRequest(Prompt(text="Where is the parcel for"), " Lyon? In Lyon.")
    session = LocalBackend(Home(home)).open_session(job.name)
    try:
        found = list(session.loglikelihood_rolling(texts, ["base"], window=64))
        [likely] = session.loglikelihood([requested], ["base"])
    finally:
        session.close()

    def plain(ids: list[int], first: int) -> float:
        with torch.inference_mode():
            said = model(torch.tensor([ids])).logits.log_softmax(-1)[0]
        return math.fsum(float(said[at - 1, ids[at]]) for at in range(first, len(ids)))

    for one, text in zip(found, texts, strict=True):
        ids, total, done = tokenizer(text)["input_ids"], 0.0, 1
        for start in range(0, max(1, len(ids) - 1), 32):
            window = ids[start : start + 64]
            if start + len(window) > done:
                total += plain(window, done - start)
                done = start + len(window)
        assert one.log_likelihood == pytest.approx(total, rel=1e-6)
        assert one.tokens == max(0, len(ids) - 1)
    before, after = (
        tokenizer(part)["input_ids"] for part in (requested.prompt.text, requested.text)
    )
    assert likely.log_likelihood == pytest.approx(plain([*before, *after], len(before)), rel=1e-6)


def write_more_tasks(task: dict[str, Any], folder: Path) -> None:
    """Write a task with two filters, and one of losses: of each document, and of all together."""
    shared = {name: task[name] for name in ("dataset_path", "dataset_kwargs", "test_split")}
    extracted = {
        **shared,
        "task": "extracted",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{options[answer]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match", "higher_is_better": True}],
        "filter_list": [
            {"name": name, "filter": [{"function": "regex", **how}, {"function": "take_first"}]}
            for name, how in (
                ("strict", {"regex_pattern": "In (\\w+)"}),
                ("flexible", {"regex_pattern": "(\\w+)", "group_select": -1}),
            )
        ],
    }
    loss = {
        **shared,
        "task": "loss",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [
            {"metric": "loss", "aggregation": "mean", "higher_is_better": False},
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        ],
    }
    (folder / "extracted.yaml").write_text(yaml.safe_dump(extracted))
    how = "process_results: !function loss.process\n"
    (folder / "loss.yaml").write_text(yaml.safe_dump(loss) + how)
    (folder / "loss.py").write_text(
        "def process(doc, results):\n    return {'loss': -results[0], 'perplexity': results[0]}\n"
    )


def check_more_tasks(figures: dict[tuple[str, str], dict[str, Any]]) -> None:
    filters = [figures["extracted", f"exact_match,{name}"] for name in ("strict", "flexible")]
    assert [one["n"] for one in filters] == [6, 6]
    loss, perplexity = figures["loss", "loss"], figures["loss", "perplexity"]
    assert loss["higherIsBetter"] is perplexity["higherIsBetter"] is False
    assert loss["verdict"] in (
        "no difference",
        "better" if loss["tuned"] < loss["base"] else "worse",
    )
    # Of each document lm-eval keeps a log-likelihood, of which more is better: no test by those.
    assert perplexity["base"] == pytest.approx(math.exp(loss["base"]))
    assert perplexity["verdict"] == "not tested" and perplexity["delta"]["low"] is None


def test_the_harness_finds_what_we_find(
    trained_job: Path, home: Path, cli: Cli, tmp_path: Path, preloaded_here: None
) -> None:
    questions = [
        {"question": f"Where is parcel {n}?", "options": list(tiny.CITIES[:4]), "answer": n % 4}
        for n in range(6)
    ]
    path = tiny.write_jsonl(tmp_path / "questions.jsonl", questions)
    task = {
        "task": "parcels",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "parcels.yaml").write_text(yaml.safe_dump(task))
    write_more_tasks(task, tmp_path)
    names = ("parcels", "extracted", "loss")
    suite = [word for name in names for word in ("--suite", f"lm-eval:{name}")]
    done = cli(
        *("evaluate", "-", "--quick", *suite, "--suite-path", tmp_path, "--output", "json"),
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    figures = {(one["suite"][8:], one["figure"]): one for one in json.loads(done.stdout)["suites"]}
    check_more_tasks(figures)
    found = figures["parcels", "acc"]

    wanted = [
        ScoringRequest(Prompt(text=q["question"]), f" {option}")
        for q in questions
        for option in q["options"]
    ]
    session = LocalBackend(Home(home)).open_session(trained_job.name)
    try:
        for name in ("base", "tuned"):
            said = [one.log_likelihood for one in session.loglikelihood(wanted, [name])]
            best = [max(range(4), key=said[4 * n : 4 * n + 4].__getitem__) for n in range(6)]
            right = [guess == q["answer"] for guess, q in zip(best, questions, strict=True)]
            assert found[name] == pytest.approx(sum(right) / 6, rel=1e-9)
    finally:
        session.close()
    done = cli("evaluate", "-", "--quick", "--suite", "lm-eval:no-such-task", timeout=200)
    assert done.returncode != 0 and "no-such-task" in done.stderr and "fix:" in done.stderr
    assert "Traceback" not in done.stderr
    assert cli("evaluate", "-", "--suite", "helm:x").returncode == 2


def test_no_place_is_left_for_answers(trained_job: Path, cli: Cli, home: Path) -> None:
    shutil.rmtree(home / "answers")
    (home / "answers").write_text("a file")
    done = cli("evaluate", "-")
    assert done.returncode != 0 and "Traceback" not in done.stderr and "fix:" in done.stderr


def test_two_jobs_are_compared_and_a_job_is_reported(
    evaluated: Any, cli: Cli, tmp_path: Path
) -> None:
    data = {"test": "test.jsonl"}
    weak, _ = evaluated("--quick", data=data, name="weak", hyperparameters={"epochCount": 1})
    strong, _ = evaluated("--quick", data=data, name="strong", hyperparameters=LEARNED)
    page = tmp_path / "compared.html"
    done = cli("compare", "base", "weak", "strong", "--page", page, "--output", "json")
    found = json.loads(done.stdout)
    scores = {row["job"]: row["score"] for row in found["leaderboard"] if "base" not in row["name"]}
    assert scores == {e["job"]: e["tuned"]["accuracy"] for e in (weak, strong)}
    assert len(found["comparisons"]) == 2 and page.read_text().count("<h2>") == 3
    assert "SCORE" in cli("compare", "weak", "strong").stdout
    assert cli("compare", "weak").returncode == cli("compare", "weak", "weak").returncode == 2

    report = tmp_path / "report.html"
    assert cli("report", "strong", "--out", report).returncode == 0
    text = report.read_text()
    for reported in (strong["identities"]["tuned"], "The tuned model is better", "<svg", "Lyon"):
        assert reported in text, reported
    done = cli("report", "strong", "--out", report)
    assert done.returncode == 2 and "--force" in done.stderr
    assert cli("report", "strong", "--out", report, "--force", "--no-texts").returncode == 0
    assert "Where is parcel 7" not in report.read_text()


def test_a_job_that_failed_or_was_not_evaluated_has_a_report_too(
    cli: Cli, job_file: JobFile, tiny_model: Path, tmp_path: Path
) -> None:
    job = job_file(name="plain")
    assert cli("submit", job, "--wait", "--quiet").returncode == 0
    assert cli("report", "plain", "--out", tmp_path / "plain.html").returncode == 0
    assert "Not evaluated yet" in (tmp_path / "plain.html").read_text()
    assert "has not been evaluated yet" in cli("compare", "base", "plain").stderr
    damaged = shutil.copytree(tiny_model, tmp_path / "damaged")
    weights = load_file(damaged / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    bad = write_job_file(tmp_path / "bad", damaged, name="bad")
    assert cli("submit", bad, "--wait", "--quiet").returncode == 1
    assert cli("report", "bad", "--out", tmp_path / "bad.html").returncode == 0
    assert "norm.weight" in (tmp_path / "bad.html").read_text()


def test_advice_rests_on_a_job_that_is_trained_once(cli: Cli, job_file: JobFile) -> None:
    path = job_file(
        records=RECORDS,
        data={"test": "test.jsonl"},
        hyperparameters=LEARNED,
        evaluate={"documents": "facts.md"},
    )
    tiny.write_jsonl(path.parent / "test.jsonl", HELD_OUT)
    (path.parent / "facts.md").write_text("\n\n".join(f"{city} is a city." for city in tiny.CITIES))
    found = json.loads(cli("advise", path, "--output", "json").stdout)
    assert found["advice"] == "fine-tune"
    assert set(found["methods"]) == {"zero-shot", "few-shot", "retrieval", "fine-tuned"}
    assert (
        found["methods"]["few-shot"]["promptTokens"]
        > found["methods"]["fine-tuned"]["promptTokens"]
    )
    assert found["facts"] == {"train_records": 40, "noise": 0.0, "stale": 0.0}
    again = cli("advise", path)
    assert "advice: fine-tune" in again.stdout and "cached" in again.stdout
    assert len(json.loads(cli("list", "--output", "json").stdout)) == 1
    grader = path.parent / "grader.py"
    grader.write_text(
        "def lambda_handler(event, context):\n    return [{'id': s['id'], 'aggregate_reward_score':"
        " float(len(s['messages'][-1]['content']) % 2)} for s in event]\n"
    )
    graded = json.loads(cli("advise", path, "--grader", grader, "--output", "json").stdout)
    assert graded["advice"] == "fine-tune" and graded["rewards"]["answers"] == 64
    done = cli("advise", path, "--set", "evaluate.documents=nowhere")
    assert done.returncode == 2 and "fix:" in done.stderr and "Traceback" not in done.stderr


def test_a_learning_curve_is_made_of_jobs_on_parts_of_the_data(evaluated: Any, cli: Cli) -> None:
    many = [
        tiny.pair(f"Where is parcel {n} for {city}?", city)
        for n in range(10)
        for city in tiny.CITIES
    ]
    options = {"data": {"test": "test.jsonl"}, "hyperparameters": {"epochCount": 3}}
    found, _ = evaluated("--quick", "--learning-curve", records=many, **options)
    curve = found["pitfalls"]["data"]
    assert [p["records"] for p in curve["points"]] == [10, 20, 40, 80]
    assert curve["points"][-1]["loss"] == pytest.approx(found["tuned"]["referenceLoss"], rel=1e-6)
    assert curve["points"][0]["loss"] > curve["points"][-1]["loss"]
    assert "10, 20, 40, 80 records" in curve["sentence"]
    assert len(json.loads(cli("list", "--output", "json").stdout)) == 1
    assert len(json.loads(cli("list", "--all", "--output", "json").stdout)) == 4


def test_a_review_continues_what_the_limit_of_the_evaluation_has_cut(
    trained_job: Path, home: Path, preloaded_here: None
) -> None:
    references = ("base", trained_job.name)
    first, second = model_results(references)
    review = Review(home / "reviews", first, second, sample=4)
    cut = review.cut_keys("a")
    assert cut and review.token_limit == 128
    continue_cut_answers(review, references, (first, second), Console("text", 0))
    assert review.cut_keys("a") == review.cut_keys("b") == []
    again = Review(home / "reviews", first, second, sample=4)
    assert again.pairs == review.pairs and again.id == review.id
    assert all(len(review.pairs[key].a) > len(first.records[key]["base"]["text"]) for key in cut)
