"""Custom models that no customization job made: copies, and models trained in SageMaker."""
