variable "job_name" {
  description = "Name of the job: 1 to 63 letters, digits, plus signs, hyphens and dots. No other job of the account ever had it."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-zA-Z0-9][a-zA-Z0-9+.-]{0,62}$", var.job_name))
    error_message = "It must be 1 to 63 letters, digits, '+', '-' or '.', a letter or digit first."
  }
}

variable "custom_model_name" {
  description = "Name of the model: letters and digits, single hyphens or underscores between them."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^([0-9a-zA-Z][_-]?){1,63}$", var.custom_model_name))
    error_message = "It must be letters and digits, with single hyphens or underscores between them."
  }
}

variable "base_model_identifier" {
  description = "ARN of the foundation model, with its context suffix where it has one; `cloudft plan` prints it."
  type        = string
  nullable    = false
}

variable "role_arn" {
  description = "Output bedrock_role_arn of the module base."
  type        = string
  nullable    = false
}

variable "hyperparameters" {
  description = "By the API's names, each value as text: { epochCount = \"2\" }."
  type        = map(string)
  nullable    = false
}

variable "training_data_uri" {
  description = "The staged file in S3. cloudft stages under the data's own digest, so that other data is another address."
  type        = string
  nullable    = false
}

variable "validation_data_uri" {
  description = "The staged validation file; null for none."
  type        = string
  default     = null
}

variable "output_uri" {
  description = "Where the job leaves its metrics."
  type        = string
  nullable    = false
}

variable "kms_key_arn" {
  description = "Output key_arn of the module base; null for a key of AWS's own."
  type        = string
  default     = null
}

variable "tags" {
  description = "Of the job and of the model."
  type        = map(string)
  default     = {}
  nullable    = false
}
