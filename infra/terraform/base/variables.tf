# The parameters of base.yaml, which CloudFormation checks again. A test holds both to each other.

variable "prefix" {
  description = "First part of every key that jobs write in the buckets."
  type        = string
  default     = "cloudft"
  nullable    = false

  validation {
    condition     = can(regex("^(?:[a-z0-9][a-z0-9-]{0,62})$", var.prefix))
    error_message = "It must be 1 to 63 small letters, digits and hyphens; no slash."
  }
}

variable "data_days" {
  description = "Staged data, code and base weights are removed after so many days. A submit sends again what is gone or would end within 30 days. What jobs have made stays."
  type        = number
  default     = 90
  nullable    = false

  validation {
    condition     = var.data_days >= 14 && var.data_days <= 3650
    error_message = "It must be 14 to 3650."
  }
}

variable "log_days" {
  description = "Access logs of the buckets, records of job events and logs of the watch."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([30, 60, 90, 180, 365, 400, 545, 731, 1827, 3653], var.log_days)
    error_message = "It must be one of 30, 60, 90, 180, 365, 400, 545, 731, 1827, 3653."
  }
}

variable "teacher_model_arns" {
  description = "For distillation, the ARN of each teacher; for an inference profile its own ARN and that of the model in each of its Regions. Empty for none."
  type        = list(string)
  default     = []
  nullable    = false
}

variable "grader_function_arn" {
  description = "For reinforcement fine-tuning, the ARN of the Lambda function that grades. Empty for none."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(?:(arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[A-Za-z0-9_:$-]{1,170})?)$", var.grader_function_arn))
    error_message = "It must be the ARN of a Lambda function, or nothing."
  }
}

variable "permissions_boundary_arn" {
  description = "A managed policy that no role of this stack may exceed. Empty for none."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(?:(arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/.{1,512})?)$", var.permissions_boundary_arn))
    error_message = "It must be the ARN of a managed policy, or nothing."
  }
}

variable "with_vpc" {
  description = "Two private subnets that reach S3 and nothing else, for jobs that may not leave them."
  type        = string
  default     = "no"
  nullable    = false

  validation {
    condition     = contains(["yes", "no"], var.with_vpc)
    error_message = "It must be one of yes, no."
  }
}

variable "vpc_cidr" {
  description = "Addresses of that network. Each of its two subnets takes 64 of them."
  type        = string
  default     = "10.87.0.0/24"
  nullable    = false

  validation {
    condition     = can(regex("^(?:[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}/(1[6-9]|2[0-5]))$", var.vpc_cidr))
    error_message = "It must be IPv4 addresses with 16 to 25 bits, such as 10.87.0.0/24."
  }
}

variable "with_interface_endpoints" {
  description = "Endpoints for the Bedrock, KMS and STS APIs in that network, for machines of yours in it. Jobs do not need them. They cost by the hour."
  type        = string
  default     = "no"
  nullable    = false

  validation {
    condition     = contains(["yes", "no"], var.with_interface_endpoints)
    error_message = "It must be one of yes, no."
  }
}

variable "notify_email" {
  description = "Gets a message when a job ends, the budget is near or a throughput is forgotten. Empty for none."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(?:([^@\\s,]+@[^@\\s,]+\\.[^@\\s,]+)?)$", var.notify_email))
    error_message = "It must be one e-mail address, or nothing."
  }
}

variable "monthly_budget_usd" {
  description = "For Bedrock and SageMaker in the whole account: messages at 80 % of it spent and when more is forecast. It stops nothing. 0 for none."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.monthly_budget_usd >= 0 && var.monthly_budget_usd <= 1000000
    error_message = "It must be 0 to 1000000."
  }
}

variable "throughput_hours" {
  description = "An alarm goes off for a provisioned throughput that is past the time in its tag cloudft:expires, or without one older than this."
  type        = number
  default     = 24
  nullable    = false

  validation {
    condition     = var.throughput_hours >= 1 && var.throughput_hours <= 8784
    error_message = "It must be 1 to 8784."
  }
}

variable "github_repository" {
  description = "OWNER/NAME of the repository whose workflows may submit jobs. Empty for none."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(?:([A-Za-z0-9-]{1,39}/[A-Za-z0-9._-]{1,100})?)$", var.github_repository))
    error_message = "It must be OWNER/NAME, or nothing."
  }
}

variable "github_environment" {
  description = "Only workflow jobs of this environment of the repository get the role."
  type        = string
  default     = "cloudft"
  nullable    = false

  validation {
    condition     = can(regex("^(?:[A-Za-z0-9_-]{1,100})$", var.github_environment))
    error_message = "It must be 1 to 100 letters, digits, hyphens and underscores."
  }
}

variable "github_provider_arn" {
  description = "The account's provider for token.actions.githubusercontent.com, of which it can have one. Empty to make it."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(?:(arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/token\\.actions\\.githubusercontent\\.com)?)$", var.github_provider_arn))
    error_message = "It must be the ARN of that provider, or nothing."
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
