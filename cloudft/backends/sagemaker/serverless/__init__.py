"""SageMaker's serverless customization: CreateTrainingJob with a ServerlessJobConfig."""
