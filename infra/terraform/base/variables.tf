# The parameters of base.yaml, which CloudFormation checks again. A test holds both to each other.

variable "prefix" {
  description = "Prefix of every key that jobs write in the buckets."
  type        = string
  default     = "cloudft"
  nullable    = false

  validation {
    condition     = can(regex("^(?:[a-z0-9][a-z0-9-]{0,62})$", var.prefix))
    error_message = "It must be 1 to 63 lowercase letters, digits and hyphens; no slash."
  }
}

variable "data_days" {
  description = "Days until staged data, code and base weights expire. A submit uploads again what has expired or will within 30 days. Job results are kept."
  type        = number
  default     = 90
  nullable    = false

  validation {
    condition     = var.data_days >= 14 && var.data_days <= 3650
    error_message = "It must be 14 to 3650."
  }
}

variable "log_days" {
  description = "Retention in days of the buckets' access logs, the job event records and the monitor's logs."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([30, 60, 90, 180, 365, 400, 545, 731, 1827, 3653], var.log_days)
    error_message = "It must be one of 30, 60, 90, 180, 365, 400, 545, 731, 1827, 3653."
  }
}

variable "teacher_model_arns" {
  description = "ARNs of teacher models and of judges; for an inference profile, its own ARN and the model's in each of its Regions. Empty for none."
  type        = list(string)
  default     = []
  nullable    = false
}

variable "grader_function_arn" {
  description = "For reinforcement fine-tuning: the ARN of the Lambda grader function. Empty for none."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(?:(arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[A-Za-z0-9_:$-]{1,170})?)$", var.grader_function_arn))
    error_message = "It must be the ARN of a Lambda function, or empty."
  }
}

variable "permissions_boundary_arn" {
  description = "ARN of a managed policy used as permissions boundary of every role in this stack. Empty for none."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(?:(arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/.{1,512})?)$", var.permissions_boundary_arn))
    error_message = "It must be the ARN of a managed policy, or empty."
  }
}

variable "with_vpc" {
  description = "Create two private subnets that can reach only S3, for jobs that run in a VPC."
  type        = string
  default     = "no"
  nullable    = false

  validation {
    condition     = contains(["yes", "no"], var.with_vpc)
    error_message = "It must be one of yes, no."
  }
}

variable "vpc_cidr" {
  description = "IPv4 CIDR block of the VPC. Each of its two subnets takes 64 addresses."
  type        = string
  default     = "10.87.0.0/24"
  nullable    = false

  validation {
    condition     = can(regex("^(?:[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}/(1[6-9]|2[0-5]))$", var.vpc_cidr))
    error_message = "It must be an IPv4 CIDR block with a 16 to 25 bit prefix, for example 10.87.0.0/24."
  }
}

variable "with_interface_endpoints" {
  description = "Create interface endpoints for the Bedrock, KMS and STS APIs in the VPC, for your own instances. Jobs need none. Billed by the hour."
  type        = string
  default     = "no"
  nullable    = false

  validation {
    condition     = contains(["yes", "no"], var.with_interface_endpoints)
    error_message = "It must be one of yes, no."
  }
}

variable "notify_email" {
  description = "E-mail address to notify when a job ends, the budget is nearly spent or provisioned throughput is left running. Empty for none."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(?:([^@\\s,]+@[^@\\s,]+\\.[^@\\s,]+)?)$", var.notify_email))
    error_message = "It must be one e-mail address, or empty."
  }
}

variable "monthly_budget_usd" {
  description = "Monthly budget for Bedrock and SageMaker in the whole account: notifies when 80 % is spent and when the forecast exceeds it; stops nothing. 0 for none."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.monthly_budget_usd >= 0 && var.monthly_budget_usd <= 1000000
    error_message = "It must be 0 to 1000000."
  }
}

variable "throughput_hours" {
  description = "Raise an alarm for provisioned throughput that is past the time in its tag cloudft:expires or, without that tag, older than this number of hours."
  type        = number
  default     = 24
  nullable    = false

  validation {
    condition     = var.throughput_hours >= 1 && var.throughput_hours <= 8784
    error_message = "It must be 1 to 8784."
  }
}

variable "github_repository" {
  description = "OWNER/NAME of the GitHub repository whose workflows may submit jobs. Empty for none."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(?:([A-Za-z0-9-]{1,39}/[A-Za-z0-9._-]{1,100})?)$", var.github_repository))
    error_message = "It must be OWNER/NAME, or empty."
  }
}

variable "github_environment" {
  description = "Name of the GitHub environment whose workflow jobs may assume the role."
  type        = string
  default     = "cloudft"
  nullable    = false

  validation {
    condition     = can(regex("^(?:[A-Za-z0-9_-]{1,100})$", var.github_environment))
    error_message = "It must be 1 to 100 letters, digits, hyphens and underscores."
  }
}

variable "github_provider_arn" {
  description = "ARN of the account's OIDC provider for token.actions.githubusercontent.com (an account can have only one). Empty to create it."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(?:(arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/token\\.actions\\.githubusercontent\\.com)?)$", var.github_provider_arn))
    error_message = "It must be the ARN of that provider, or empty."
  }
}

variable "name" {
  description = "Name of the CloudFormation stack; `bedrock: {stack: NAME}` in the job file names it."
  type        = string
  default     = "cloudft"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9-]{0,127}$", var.name))
    error_message = "It must be letters, digits and hyphens, a letter first, 128 at most."
  }
}
