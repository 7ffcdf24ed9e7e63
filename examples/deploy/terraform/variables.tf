variable "hf_secret" {
  description = "Name of the secret with HF_TOKEN; empty: none."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^[A-Za-z0-9/_+=.@-]*$", var.hf_secret))
    error_message = "The name of a secret."
  }
}

variable "aws_vpc_ids" {
  description = "VPC by region; the default VPC elsewhere."
  type        = map(string)
  default     = {}
}

variable "aws_subnet_ids" {
  description = "Subnets by replica type or region; elsewhere all of the VPC. One in each zone is used."
  type        = map(list(string))
  default     = {}
}
