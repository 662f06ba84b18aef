"""Bedrock's OpenAI-compatible API: files, fine-tuning jobs, models, chat completions."""
