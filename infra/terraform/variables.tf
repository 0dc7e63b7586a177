variable "name" {
  description = "Of the stack, and the beginning of every name in it."
  type        = string
  default     = "ledger-db"
}

variable "zip" {
  description = "What `make package` has made."
  type        = string
}

variable "architecture" {
  description = "Of the zip."
  type        = string
  default     = "x86_64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "Lambda knows arm64 and x86_64."
  }
}

variable "code_bucket" {
  description = "Bucket for the zip, in the region of the stack."
  type        = string
}

variable "vpc_id" {
  description = "Where servers and services are."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets in two availability zones or more."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "Two subnets at least, in two availability zones."
  }
}

variable "parameters" {
  description = "Every other parameter of the template, by its name there: Rotation, Database, Redis, EndpointCidr ..."
  type        = map(string)
  default     = {}
}

variable "tags" {
  description = "Of the stack, and so of what is in it."
  type        = map(string)
  default     = {}
}
