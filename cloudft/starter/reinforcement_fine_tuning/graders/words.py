"""Reward a description by how near its number of words is to the one in the prompt.

`lambda_handler` gets a list of samples: `messages` end with the model's answer, and `metadata` has
the record's `reference_answer`. It returns a reward for each sample, by its `id`.
"""


def lambda_handler(event, context):
    """Return the rewards of the samples."""
    return [grade(sample) for sample in event]


def grade(sample):
    """Return one sample's reward: 1 for the right length, less for each word too many or few."""
    words = len(sample["messages"][-1]["content"].split())
    right = int(sample["metadata"]["reference_answer"])
    return {
        "id": sample["id"],
        "aggregate_reward_score": max(0.0, 1 - abs(words - right) / right),
        "metrics_list": [{"name": "exact", "value": float(words == right), "type": "Metric"}],
    }
