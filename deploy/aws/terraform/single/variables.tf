variable "name" {
  type        = string
  default     = "vxsniff"
  description = "What everything is named after: letters, digits and dashes."
}

variable "vpc_id" {
  type        = string
  description = "The VPC of the mirror target. The sources must be able to reach it."
}

variable "source_security_group_ids" {
  type        = list(string)
  default     = []
  description = "Security groups of the mirrored interfaces, which may send to UDP 4789. Or use source_cidrs."
}

variable "source_cidrs" {
  type        = list(string)
  default     = []
  description = "Address ranges of the mirrored interfaces, which may send to UDP 4789."
}

variable "metrics_cidr" {
  type        = string
  default     = ""
  description = "Where Prometheus scrapes /metrics (TCP 9478) from. Empty for nowhere."
}

variable "egress_cidr" {
  type        = string
  description = "What the instance may reach by TCP 443 and the capture port - AWS's services, packages, the collector. 0.0.0.0/0 where that is by NAT or the internet; the VPC's range where all of it is by VPC endpoints."
}

variable "capture_port" {
  type        = number
  default     = 443
  description = "The TCP port of the capture URL."
}

variable "architecture" {
  type        = string
  default     = "arm64"
  description = "Of the instance type."

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "One of arm64, x86_64."
  }
}

variable "instance_type" {
  type        = string
  default     = "c7g.large"
  description = "docs/performance.md tells what one takes. A source interface that mirrors needs no special type, nor does this."
}

variable "volume_size" {
  type        = number
  default     = 16
  description = "GiB of the encrypted volume. The spool takes 1 GiB of it at most."
}

variable "session_manager" {
  type        = bool
  default     = false
  description = "Whether a shell can be had through Session Manager, which attaches AmazonSSMManagedInstanceCore."
}

variable "runtime" {
  type        = string
  default     = "systemd"
  description = "The hardened systemd unit, from package, or a container, from image."

  validation {
    condition     = contains(["systemd", "container"], var.runtime)
    error_message = "One of systemd, container."
  }
}

variable "package" {
  type        = string
  default     = "vxsniff"
  description = "What pip installs for runtime systemd - a requirement, an https URL, git+https, or s3://BUCKET/KEY of a wheel or source archive."
}

variable "image" {
  type        = string
  default     = "vxsniff"
  description = "The image for runtime container, with its registry. Amazon ECR is logged in to."
}

variable "image_repository_arn" {
  type        = string
  default     = ""
  description = "The ARN of the Amazon ECR repository of image, which may then be pulled from."
}

variable "capture_url_parameter" {
  type        = string
  default     = "/vxsniff/capture-url"
  description = "The name of the SSM parameter (String or SecureString) that holds the capture URL."
}

variable "capture_url_secret_arn" {
  type        = string
  default     = ""
  description = "The ARN of a secret that holds the capture URL instead."
}

variable "capture_url_kms_key_arn" {
  type        = string
  default     = ""
  description = "The ARN of the customer managed key that either is encrypted with. Empty for AWS's own key."
}

variable "rules" {
  type        = string
  default     = "include default"
  description = "Privacy rules, one a line. The default, strict, ships no bodies and no parameters."
}

variable "more_settings" {
  type        = string
  default     = "# none"
  description = "Further lines of .env, such as SNIFFER_SPOOL_LIMIT=8GiB."
}

variable "app_ports" {
  type        = list(string)
  default     = ["80"]
  description = "Up to five TCP ports or ranges of the applications, such as 80,8000-8010. Others are not mirrored."
}

variable "mirror_ipv6" {
  type        = bool
  default     = false
  description = "Whether IPv6 is mirrored, too - of the first two of app_ports, which may then be three at most, as a filter has ten rules."
}

variable "mirror_sources" {
  type        = list(string)
  default     = []
  description = "Network interfaces to mirror, each with a VNI of your choice, as eni-0123456789abcdef0:101."
}

variable "session_number" {
  type        = number
  default     = 1
  description = "The place of these sessions among those of an interface. The first one whose filter accepts a packet gets it."
}

variable "vnis" {
  type        = string
  default     = ""
  description = "VNIs of sessions that are made elsewhere. With neither these nor mirror_sources every VNI is captured."
}

variable "subnet_id" {
  type        = string
  description = "The subnet of the instance. It needs a way to AWS's services and to the collector."
}
