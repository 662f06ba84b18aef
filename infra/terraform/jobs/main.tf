# jobs.yaml itself, as Terraform makes it: one source, and a stack that `cloudft infra status` knows.
terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

resource "aws_cloudformation_stack" "jobs" {
  name          = var.name
  template_body = file("${path.module}/../../jobs.yaml")
  capabilities  = ["CAPABILITY_IAM"]

  parameters = {
    DataBucketName         = var.data_bucket_name
    OutputBucketName       = var.output_bucket_name
    Prefix                 = var.prefix
    KeyArn                 = var.key_arn
    BedrockRoleArn         = var.bedrock_role_arn
    JobTopicArn            = var.job_topic_arn
    MaxRunningJobs         = tostring(var.max_running_jobs)
    QueueSeconds           = tostring(var.queue_seconds)
    QueueTries             = tostring(var.queue_tries)
    FollowSeconds          = tostring(var.follow_seconds)
    Afterwards             = var.afterwards
    WorstValidationLoss    = tostring(var.worst_validation_loss)
    KeepDeploymentHours    = tostring(var.keep_deployment_hours)
    ScheduleExpression     = var.schedule_expression
    ScheduledPlan          = var.scheduled_plan
    LogDays                = tostring(var.log_days)
    PermissionsBoundaryArn = var.permissions_boundary_arn
    CiRoleArn              = var.ci_role_arn
  }
}
