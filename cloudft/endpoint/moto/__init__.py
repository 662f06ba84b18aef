"""moto, which serves everything beside Bedrock, and the log that restores its state."""
