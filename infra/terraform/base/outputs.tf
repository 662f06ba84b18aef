# The outputs of the template. One that its stack does not have is null.

output "data_bucket_name" {
  description = "Staged data and plans"
  value       = lookup(aws_cloudformation_stack.base.outputs, "DataBucketName", null)
}

output "output_bucket_name" {
  description = "What jobs leave, and merged weights"
  value       = lookup(aws_cloudformation_stack.base.outputs, "OutputBucketName", null)
}

output "log_bucket_name" {
  description = "Access logs of both"
  value       = lookup(aws_cloudformation_stack.base.outputs, "LogBucketName", null)
}

output "prefix" {
  description = "First part of every key"
  value       = lookup(aws_cloudformation_stack.base.outputs, "Prefix", null)
}

output "key_arn" {
  description = "Of the buckets, the messages and the custom models"
  value       = lookup(aws_cloudformation_stack.base.outputs, "KeyArn", null)
}

output "bedrock_role_arn" {
  description = "For customization jobs"
  value       = lookup(aws_cloudformation_stack.base.outputs, "BedrockRoleArn", null)
}

output "import_role_arn" {
  description = "For model imports"
  value       = lookup(aws_cloudformation_stack.base.outputs, "ImportRoleArn", null)
}

output "sage_maker_role_arn" {
  description = "For training jobs"
  value       = lookup(aws_cloudformation_stack.base.outputs, "SageMakerRoleArn", null)
}

output "submitter_policy_arn" {
  description = "Attach it to people"
  value       = lookup(aws_cloudformation_stack.base.outputs, "SubmitterPolicyArn", null)
}

output "serving_policy_arn" {
  description = "Attach it to people who serve, ask and remove models"
  value       = lookup(aws_cloudformation_stack.base.outputs, "ServingPolicyArn", null)
}

output "ci_policy_arn" {
  description = "Attach it to pipelines and to people"
  value       = lookup(aws_cloudformation_stack.base.outputs, "CiPolicyArn", null)
}

output "ci_role_arn" {
  description = "What the GitHub workflow takes on"
  value       = lookup(aws_cloudformation_stack.base.outputs, "CiRoleArn", null)
}

output "job_topic_arn" {
  description = "Messages"
  value       = lookup(aws_cloudformation_stack.base.outputs, "JobTopicArn", null)
}

output "subnet_ids" {
  description = "For vpc.subnet_ids"
  value       = lookup(aws_cloudformation_stack.base.outputs, "SubnetIds", null)
}

output "security_group_ids" {
  description = "For vpc.security_group_ids"
  value       = lookup(aws_cloudformation_stack.base.outputs, "SecurityGroupIds", null)
}
