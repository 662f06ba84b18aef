# The outputs of the template. One that its stack does not have is null.

output "job_machine_arn" {
  description = "Drives a job; `cloudft submit --via-stack` starts it"
  value       = lookup(aws_cloudformation_stack.jobs.outputs, "JobMachineArn", null)
}

output "plan_starter_arn" {
  description = "Starts a plan that was put into the data bucket"
  value       = lookup(aws_cloudformation_stack.jobs.outputs, "PlanStarterArn", null)
}

output "machine_policy_arn" {
  description = "Attach it to people and pipelines that submit by this stack"
  value       = lookup(aws_cloudformation_stack.jobs.outputs, "MachinePolicyArn", null)
}
