"""Running inside a SageMaker training container."""
