# base.yaml as JSON, which is short enough for a request: one source, and a stack that `cloudft infra status` knows.
terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

resource "aws_cloudformation_stack" "base" {
  name          = var.name
  template_body = file("${path.module}/../../base.json")
  capabilities  = ["CAPABILITY_IAM"]

  parameters = {
    Prefix                 = var.prefix
    DataDays               = tostring(var.data_days)
    LogDays                = tostring(var.log_days)
    TeacherModelArns       = join(",", var.teacher_model_arns)
    GraderFunctionArn      = var.grader_function_arn
    PermissionsBoundaryArn = var.permissions_boundary_arn
    WithVpc                = var.with_vpc
    VpcCidr                = var.vpc_cidr
    WithInterfaceEndpoints = var.with_interface_endpoints
    NotifyEmail            = var.notify_email
    MonthlyBudgetUsd       = tostring(var.monthly_budget_usd)
    ThroughputHours        = tostring(var.throughput_hours)
    GitHubRepository       = var.github_repository
    GitHubEnvironment      = var.github_environment
    GitHubProviderArn      = var.github_provider_arn
  }
}
