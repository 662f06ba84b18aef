# The outputs of the template. One that its stack does not have is null.

output "job_machine_arn" {
  description = "State machine that runs a job; started by `cloudft submit --via-state-machine`"
  value       = lookup(aws_cloudformation_stack.jobs.outputs, "JobMachineArn", null)
}

output "plan_starter_arn" {
  description = "State machine that starts a plan uploaded to the data bucket"
  value       = lookup(aws_cloudformation_stack.jobs.outputs, "PlanStarterArn", null)
}

output "machine_policy_arn" {
  description = "Policy for people and pipelines that submit through this stack"
  value       = lookup(aws_cloudformation_stack.jobs.outputs, "MachinePolicyArn", null)
}
