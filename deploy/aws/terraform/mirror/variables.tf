variable "name" {
  type = string
}

variable "app_ports" {
  type = list(string)
}

variable "mirror_ipv6" {
  type = bool
}

variable "mirror_sources" {
  type = list(string)
}

variable "session_number" {
  type = number
}

variable "target_id" {
  type = string
}
