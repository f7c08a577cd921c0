variable "name" {
  type = string
}

variable "vpc_id" {
  type = string
}

variable "source_security_group_ids" {
  type = list(string)
}

variable "source_cidrs" {
  type = list(string)
}

variable "metrics_cidr" {
  type = string
}

variable "egress_cidr" {
  type = string
}

variable "capture_port" {
  type = number
}

variable "architecture" {
  type = string
}

variable "instance_type" {
  type = string
}

variable "volume_size" {
  type = number
}

variable "session_manager" {
  type = bool
}

variable "runtime" {
  type = string
}

variable "package" {
  type = string
}

variable "image" {
  type = string
}

variable "image_repository_arn" {
  type = string
}

variable "capture_url_parameter" {
  type = string
}

variable "capture_url_secret_arn" {
  type = string
}

variable "capture_url_kms_key_arn" {
  type = string
}

variable "rules" {
  type = string
}

variable "more_settings" {
  type = string
}

variable "app_ports" {
  type = list(string)
}

variable "mirror_sources" {
  type = list(string)
}

variable "vnis" {
  type = string
}

# What differs between one instance and a group.

variable "metrics_address" {
  type = string
}

variable "geneve_port" {
  type = string
}

variable "group_name" {
  type = string
}

variable "hook_name" {
  type = string
}
