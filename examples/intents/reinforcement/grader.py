"""Reward of an answer: 1 for the intent's name alone, 0.2 for a text that ends with it, else 0.

The same file is the grader here, in the endpoint, on SageMaker and in Lambda.
"""


def reward(answer, reference):
    """Return the reward of one answer."""
    answer = answer.strip()
    if answer == reference:
        return 1.0
    return 0.2 if answer.rstrip(".").endswith(reference) else 0.0


def lambda_handler(event, context):
    """Return the reward of each sample of the event."""
    return [
        {
            "id": sample["id"],
            "aggregate_reward_score": reward(
                sample["messages"][-1]["content"], sample["metadata"]["reference_answer"]
            ),
        }
        for sample in event
    ]
