"""Jobs on Amazon SageMaker: the local trainer itself, in a training job of the account."""
