"""Learn from rewards: sample answers, have them graded, prefer the better ones (GRPO)."""
