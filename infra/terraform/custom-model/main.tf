# One customization job and its model as a Terraform resource. Read the README first: an apply does not
# wait for the training, and a changed hyperparameter removes the model.
terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

resource "aws_bedrock_custom_model" "model" {
  job_name                = var.job_name
  custom_model_name       = var.custom_model_name
  base_model_identifier   = var.base_model_identifier
  customization_type      = "FINE_TUNING"
  role_arn                = var.role_arn
  hyperparameters         = var.hyperparameters
  custom_model_kms_key_id = var.kms_key_arn
  tags                    = var.tags

  training_data_config {
    s3_uri = var.training_data_uri
  }

  output_data_config {
    s3_uri = var.output_uri
  }

  dynamic "validation_data_config" {
    for_each = var.validation_data_uri == null ? [] : [var.validation_data_uri]

    content {
      validator {
        s3_uri = validation_data_config.value
      }
    }
  }

  lifecycle {
    # What took hours and money goes by a change of this file alone.
    prevent_destroy = true
  }
}
