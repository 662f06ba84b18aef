"""The services that moto plays beside Bedrock, and the log that restores them."""
