# What one instance and a group of them have in common: settings, security group, role and launch template.

data "aws_partition" "this" {}
data "aws_region" "this" {}
data "aws_caller_identity" "this" {}

data "aws_ssm_parameter" "image" {
  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-${var.architecture}"
}

locals {
  parameters = "arn:${data.aws_partition.this.partition}:ssm:${data.aws_region.this.name}:${data.aws_caller_identity.this.account_id}:parameter"
  statements = concat(
    [{
      Sid    = "Settings"
      Effect = "Allow"
      Action = ["ssm:GetParameter"]
      Resource = [
        aws_ssm_parameter.settings.arn,
        aws_ssm_parameter.rules.arn,
        "${local.parameters}${var.capture_url_parameter}",
      ]
    }],
    var.capture_url_secret_arn == "" ? [] : [{
      Sid = "Secret", Effect = "Allow", Action = ["secretsmanager:GetSecretValue"], Resource = [var.capture_url_secret_arn]
    }],
    var.capture_url_kms_key_arn == "" ? [] : [{
      Sid = "Key", Effect = "Allow", Action = ["kms:Decrypt"], Resource = [var.capture_url_kms_key_arn]
    }],
    !startswith(var.package, "s3://") ? [] : [{
      Sid      = "Package"
      Effect   = "Allow"
      Action   = ["s3:GetObject"]
      Resource = ["arn:${data.aws_partition.this.partition}:s3:::${trimprefix(var.package, "s3://")}"]
    }],
    # This action has no resource to name.
    var.image_repository_arn == "" ? [] : [{
      Sid = "Login", Effect = "Allow", Action = ["ecr:GetAuthorizationToken"], Resource = ["*"]
    }],
    var.image_repository_arn == "" ? [] : [{
      Sid      = "Image"
      Effect   = "Allow"
      Action   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      Resource = [var.image_repository_arn]
    }],
    var.group_name == "" ? [] : [{
      Sid      = "Drain"
      Effect   = "Allow"
      Action   = ["autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat"]
      Resource = ["arn:${data.aws_partition.this.partition}:autoscaling:${data.aws_region.this.name}:${data.aws_caller_identity.this.account_id}:autoScalingGroup:*:autoScalingGroupName/${var.group_name}"]
    }],
  )
}

# Read by the instances every minute: a change takes effect without a restart, and replaces nothing.
resource "aws_ssm_parameter" "settings" {
  name        = "/vxsniff/${var.name}/settings"
  type        = "String"
  description = "Settings of vxsniff, as .env"
  value       = <<-EOT
    SNIFFER_ENGINE=vxlan
    SNIFFER_MIRROR_VNIS=${var.vnis},${join(",", var.mirror_sources)}
    SNIFFER_MIRROR_GENEVEPORT=${var.geneve_port}
    SNIFFER_METRICS_ADDRESS=${var.metrics_address}
    APP_PORTS=${join(",", var.app_ports)}
    ${var.more_settings}
  EOT
}

resource "aws_ssm_parameter" "rules" {
  name        = "/vxsniff/${var.name}/rules"
  type        = "String"
  description = "Privacy rules of vxsniff"
  value       = var.rules
}

resource "aws_security_group" "this" {
  name_prefix = "${var.name}-"
  description = "Mirrored traffic to vxsniff"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "source_group" {
  for_each                     = toset(var.source_security_group_ids)
  security_group_id            = aws_security_group.this.id
  ip_protocol                  = "udp"
  from_port                    = 4789
  to_port                      = 4789
  referenced_security_group_id = each.value
  description                  = "mirrored traffic"
}

resource "aws_vpc_security_group_ingress_rule" "source_cidr" {
  for_each          = toset(var.source_cidrs)
  security_group_id = aws_security_group.this.id
  ip_protocol       = "udp"
  from_port         = 4789
  to_port           = 4789
  cidr_ipv4         = each.value
  description       = "mirrored traffic"
}

resource "aws_vpc_security_group_ingress_rule" "metrics" {
  count             = var.metrics_cidr == "" ? 0 : 1
  security_group_id = aws_security_group.this.id
  ip_protocol       = "tcp"
  from_port         = 9478
  to_port           = 9478
  cidr_ipv4         = var.metrics_cidr
  description       = "metrics"
}

resource "aws_vpc_security_group_egress_rule" "out" {
  for_each          = toset([for port in distinct([443, var.capture_port]) : tostring(port)])
  security_group_id = aws_security_group.this.id
  ip_protocol       = "tcp"
  from_port         = tonumber(each.value)
  to_port           = tonumber(each.value)
  cidr_ipv4         = var.egress_cidr
  description       = "services, packages and capture URL"
}

resource "aws_iam_role" "this" {
  name_prefix = "${var.name}-"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "ec2.amazonaws.com" } }]
  })
}

resource "aws_iam_role_policy" "this" {
  name   = "vxsniff"
  role   = aws_iam_role.this.id
  policy = jsonencode({ Version = "2012-10-17", Statement = local.statements })
}

# This action has no resource to name, but a namespace.
resource "aws_iam_role_policy" "publish" {
  count = var.group_name == "" ? 0 : 1
  name  = "publish"
  role  = aws_iam_role.this.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "cloudwatch:PutMetricData"
      Resource  = "*"
      Condition = { StringEquals = { "cloudwatch:namespace" = "vxsniff" } }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "session_manager" {
  count      = var.session_manager ? 1 : 0
  role       = aws_iam_role.this.name
  policy_arn = "arn:${data.aws_partition.this.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "this" {
  name_prefix = "${var.name}-"
  role        = aws_iam_role.this.name
}

resource "aws_launch_template" "this" {
  name_prefix            = "${var.name}-"
  image_id               = data.aws_ssm_parameter.image.insecure_value
  instance_type          = var.instance_type
  update_default_version = true
  vpc_security_group_ids = var.group_name == "" ? [] : [aws_security_group.this.id]

  iam_instance_profile {
    arn = aws_iam_instance_profile.this.arn
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type           = "gp3"
      volume_size           = var.volume_size
      encrypted             = true
      delete_on_termination = true
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = var.name }
  }

  # The variables of the script, and the script that the CloudFormation templates have as well.
  user_data = base64encode(join("", [<<-EOT
    #!/bin/bash
    STACK_NAME='${var.name}'
    SIGNAL_RESOURCE=''
    RUNTIME='${var.runtime}'
    PACKAGE='${var.package}'
    IMAGE='${var.image}'
    SETTINGS_PARAMETER='${aws_ssm_parameter.settings.name}'
    RULES_PARAMETER='${aws_ssm_parameter.rules.name}'
    CAPTURE_URL_PARAMETER='${var.capture_url_parameter}'
    CAPTURE_URL_SECRET='${var.capture_url_secret_arn}'
    GROUP_NAME='${var.group_name}'
    HOOK_NAME='${var.hook_name}'
    METRICS_NAMESPACE='vxsniff'
  EOT
  , file("${path.module}/../../user-data.sh")]))

  depends_on = [aws_iam_role_policy.this]
}
