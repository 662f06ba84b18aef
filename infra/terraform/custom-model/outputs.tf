output "job_arn" {
  description = "The job."
  value       = aws_bedrock_custom_model.model.job_arn
}

output "job_status" {
  description = "As of the last refresh: InProgress right after an apply."
  value       = aws_bedrock_custom_model.model.job_status
}

output "custom_model_arn" {
  description = "The model; empty until a refresh after the job has completed."
  value       = aws_bedrock_custom_model.model.custom_model_arn
}
