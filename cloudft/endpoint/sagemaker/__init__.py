"""SageMaker on the endpoint: training jobs that run cloudft's own trainer."""
