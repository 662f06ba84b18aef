"""Jobs of Bedrock's OpenAI-compatible fine-tuning API: gpt-oss, Qwen3."""
