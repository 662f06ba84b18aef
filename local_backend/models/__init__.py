"""Load models and attach LoRA adapters."""
