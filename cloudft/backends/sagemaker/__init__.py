"""Jobs on Amazon SageMaker: the local trainer as a training job."""
