# The outputs of the template. One that its stack does not have is null.

output "data_bucket_name" {
  description = "Staged data and plans"
  value       = lookup(aws_cloudformation_stack.base.outputs, "DataBucketName", null)
}

output "output_bucket_name" {
  description = "Job output and merged weights"
  value       = lookup(aws_cloudformation_stack.base.outputs, "OutputBucketName", null)
}

output "log_bucket_name" {
  description = "Access logs of both buckets"
  value       = lookup(aws_cloudformation_stack.base.outputs, "LogBucketName", null)
}

output "prefix" {
  description = "Prefix of every key"
  value       = lookup(aws_cloudformation_stack.base.outputs, "Prefix", null)
}

output "key_arn" {
  description = "Key that encrypts the buckets, the notifications and the custom models"
  value       = lookup(aws_cloudformation_stack.base.outputs, "KeyArn", null)
}

output "bedrock_role_arn" {
  description = "Service role for customization jobs"
  value       = lookup(aws_cloudformation_stack.base.outputs, "BedrockRoleArn", null)
}

output "import_role_arn" {
  description = "Service role for model import jobs"
  value       = lookup(aws_cloudformation_stack.base.outputs, "ImportRoleArn", null)
}

output "sage_maker_role_arn" {
  description = "Execution role for SageMaker training jobs"
  value       = lookup(aws_cloudformation_stack.base.outputs, "SageMakerRoleArn", null)
}

output "submitter_policy_arn" {
  description = "Policy for people who run jobs"
  value       = lookup(aws_cloudformation_stack.base.outputs, "SubmitterPolicyArn", null)
}

output "serving_policy_arn" {
  description = "Policy for people who deploy, invoke and delete models"
  value       = lookup(aws_cloudformation_stack.base.outputs, "ServingPolicyArn", null)
}

output "ci_policy_arn" {
  description = "Policy for pipelines and for people"
  value       = lookup(aws_cloudformation_stack.base.outputs, "CiPolicyArn", null)
}

output "ci_role_arn" {
  description = "Role that the GitHub workflow assumes"
  value       = lookup(aws_cloudformation_stack.base.outputs, "CiRoleArn", null)
}

output "job_topic_arn" {
  description = "SNS topic for notifications"
  value       = lookup(aws_cloudformation_stack.base.outputs, "JobTopicArn", null)
}

output "subnet_ids" {
  description = "Value for vpc.subnet_ids"
  value       = lookup(aws_cloudformation_stack.base.outputs, "SubnetIds", null)
}

output "security_group_ids" {
  description = "Value for vpc.security_group_ids"
  value       = lookup(aws_cloudformation_stack.base.outputs, "SecurityGroupIds", null)
}
