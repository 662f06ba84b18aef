#!/usr/bin/env bash
# lm-eval's higher_is_better is of the figure, not of the values that it keeps of each document.
#
# Packages: lm_eval 0.4.13, datasets 5.2.0.
# Guess: with log_samples, a sample has the metric's value under the metric's name, and the result's `higher_is_better`
# says of that name which way is better; so two models can be compared document by document.
# Behavior: of the built-in task type `loglikelihood` (lambada is one) a sample's "perplexity" is a log-likelihood: less
# than 0, and better when higher. The figure "perplexity,none" is exp of minus their mean, and better when lower, which
# is what `higher_is_better` says (False). Read together, the better model is the worse one in every document.
# Why it matters: paired tests and win counts from the logged samples come out the wrong way round, with a tiny p.
# Way out: use a metric's samples only where their mean is the figure (here it is not), and leave the others to lm-eval.
# Seen:
#   model     figure    its documents     the documents' mean
#   good      2.718     [-1.0, -1.0]      -1.000
#   poor      20.086    [-3.0, -3.0]      -3.000
#   higher_is_better: {'perplexity': False, 'acc': True}
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet lm_eval==0.4.13 datasets==5.2.0
cd "$folder"
mkdir tasks
printf '%s\n' '{"text": "The parcel is in", "word": "Lyon"}' '{"text": "It was sent on", "word": "Monday"}' > data.jsonl
cat > tasks/words.yaml <<YAML
task: words
dataset_path: json
dataset_kwargs: {data_files: {test: $folder/data.jsonl}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{text}}"
doc_to_target: "{{word}}"
metric_list: [{metric: perplexity}, {metric: acc}]
YAML
cat > try.py <<'PYTHON'
import sys

import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager


class Sure(LM):
    """A model whose log-likelihood of every word is the same."""

    def __init__(self, log_likelihood):
        super().__init__()
        self.log_likelihood = log_likelihood

    def loglikelihood(self, requests):
        return [(self.log_likelihood, False) for _ in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


def evaluate(log_likelihood):
    results = lm_eval.simple_evaluate(
        model=Sure(log_likelihood),
        tasks=["words"],
        task_manager=TaskManager(include_path="tasks", include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    values = [float(sample["perplexity"]) for sample in results["samples"]["words"]]
    return float(results["results"]["words"]["perplexity,none"]), values, results["higher_is_better"]["words"]


print("model     figure    its documents     the documents' mean")
figures, documents = {}, {}
for name, log_likelihood in (("good", -1.0), ("poor", -3.0)):
    figures[name], documents[name], higher = evaluate(log_likelihood)
    mean = sum(documents[name]) / len(documents[name])
    print(f"{name:10}{figures[name]:<10.3f}{documents[name]!s:18}{mean:.3f}")
print("higher_is_better:", dict(higher))
same = higher["perplexity"] is False and figures["good"] < figures["poor"]
same = same and all(a > b for a, b in zip(documents["good"], documents["poor"], strict=True))
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$folder/hub" "$folder/env/bin/python" -W ignore try.py 2> log || { cat log >&2; exit 1; }
