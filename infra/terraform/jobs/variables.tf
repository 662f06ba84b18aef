# The parameters of jobs.yaml, which CloudFormation checks again. A test holds both to each other.

variable "data_bucket_name" {
  description = "Output DataBucketName of the base stack."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^(?:[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])$", var.data_bucket_name))
    error_message = "It must be the name of a bucket."
  }
}

variable "output_bucket_name" {
  description = "Output OutputBucketName of the base stack."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^(?:[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])$", var.output_bucket_name))
    error_message = "It must be the name of a bucket."
  }
}

variable "prefix" {
  description = "Output Prefix of the base stack."
  type        = string
  default     = "cloudft"
  nullable    = false

  validation {
    condition     = can(regex("^(?:[a-z0-9][a-z0-9-]{0,62})$", var.prefix))
    error_message = "It must be 1 to 63 lowercase letters, digits and hyphens; no slash."
  }
}

variable "key_arn" {
  description = "Output KeyArn of the base stack."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^(?:arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+)$", var.key_arn))
    error_message = "It must be the ARN of a KMS key."
  }
}

variable "bedrock_role_arn" {
  description = "Output BedrockRoleArn of the base stack. The state machine passes no other role to Bedrock."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^(?:arn:aws[a-z-]*:iam::[0-9]{12}:role/.+)$", var.bedrock_role_arn))
    error_message = "It must be the ARN of a role."
  }
}

variable "job_topic_arn" {
  description = "Output JobTopicArn of the base stack. Receives a notification when a plan fails."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^(?:arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:.+)$", var.job_topic_arn))
    error_message = "It must be the ARN of an SNS topic."
  }
}

variable "max_running_jobs" {
  description = "Maximum number of concurrent customization jobs in this account and Region, whoever started them; further jobs are queued. 0 for no limit of its own. Bedrock's own quota applies in any case."
  type        = number
  default     = 2
  nullable    = false

  validation {
    condition     = var.max_running_jobs >= 0 && var.max_running_jobs <= 40
    error_message = "It must be 0 to 40."
  }
}

variable "queue_seconds" {
  description = "Seconds that a queued job waits between attempts."
  type        = number
  default     = 300
  nullable    = false

  validation {
    condition     = var.queue_seconds >= 1 && var.queue_seconds <= 86400
    error_message = "It must be 1 to 86400."
  }
}

variable "queue_tries" {
  description = "Maximum number of attempts; the defaults last two days. An execution can have 25,000 events, about 18 per attempt."
  type        = number
  default     = 576
  nullable    = false

  validation {
    condition     = var.queue_tries >= 0 && var.queue_tries <= 1000
    error_message = "It must be 0 to 1000."
  }
}

variable "follow_seconds" {
  description = "Seconds between status checks of a running job when no event arrives."
  type        = number
  default     = 300
  nullable    = false

  validation {
    condition     = var.follow_seconds >= 1 && var.follow_seconds <= 86400
    error_message = "It must be 1 to 86400."
  }
}

variable "afterwards" {
  description = "deploy: serve a completed model on demand, which costs nothing while it is not invoked. Provisioned throughput, which is billed by the hour, is never created here."
  type        = string
  default     = "nothing"
  nullable    = false

  validation {
    condition     = contains(["nothing", "deploy"], var.afterwards)
    error_message = "It must be one of nothing, deploy."
  }
}

variable "worst_validation_loss" {
  description = "Do not deploy a model whose validation loss, as measured by Bedrock, is above this value. 0 for no limit."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.worst_validation_loss >= 0
    error_message = "It must be at least 0."
  }
}

variable "keep_deployment_hours" {
  description = "Number of hours after which the state machine's own deployment is deleted; the model is kept. 0 keeps the deployment."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.keep_deployment_hours >= 0 && var.keep_deployment_hours <= 8760
    error_message = "It must be 0 to 8760."
  }
}

variable "schedule_expression" {
  description = "When to start the plan at PREFIX/scheduled/NAME in the data bucket, for example cron(0 2 * * ? *), in UTC. A plan that was started before is not started again. Empty for no schedule."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(?:((cron|rate|at)\\(.+\\))?)$", var.schedule_expression))
    error_message = "It must be cron(...), rate(...), at(...), or empty."
  }
}

variable "scheduled_plan" {
  description = "Name of the scheduled plan object."
  type        = string
  default     = "plan.json"
  nullable    = false

  validation {
    condition     = can(regex("^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,127})$", var.scheduled_plan))
    error_message = "It must be 1 to 128 letters, digits, dots, hyphens and underscores."
  }
}

variable "log_days" {
  description = "Retention in days of the state machines' error logs. The content of plans is not logged."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([30, 60, 90, 180, 365, 400, 545, 731, 1827, 3653], var.log_days)
    error_message = "It must be one of 30, 60, 90, 180, 365, 400, 545, 731, 1827, 3653."
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

variable "ci_role_arn" {
  description = "Output CiRoleArn of the base stack, if it has one; that role may submit through this stack. Empty for none."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(?:(arn:aws[a-z-]*:iam::[0-9]{12}:role/[^/]+)?)$", var.ci_role_arn))
    error_message = "It must be the ARN of a role without a path, or empty."
  }
}

variable "name" {
  description = "Name of the CloudFormation stack; `bedrock: {stack: NAME}` in the job file names it."
  type        = string
  default     = "cloudft-jobs"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9-]{0,127}$", var.name))
    error_message = "It must be letters, digits and hyphens, a letter first, 128 at most."
  }
}
