# vxsniff as a traffic mirror target behind a Network or Gateway Load Balancer, in an Auto Scaling group.

locals {
  is_network = var.load_balancer_type == "network"
  group_name = "${var.name}-vxsniff"
  hook_name  = "vxsniff-drain"
}

module "machine" {
  source = "../machine"

  name                      = var.name
  vpc_id                    = var.vpc_id
  source_security_group_ids = var.source_security_group_ids
  source_cidrs              = var.source_cidrs
  metrics_cidr              = var.metrics_cidr
  egress_cidr               = var.egress_cidr
  capture_port              = var.capture_port
  architecture              = var.architecture
  instance_type             = var.instance_type
  volume_size               = var.volume_size
  session_manager           = var.session_manager
  runtime                   = var.runtime
  package                   = var.package
  image                     = var.image
  image_repository_arn      = var.image_repository_arn
  capture_url_parameter     = var.capture_url_parameter
  capture_url_secret_arn    = var.capture_url_secret_arn
  capture_url_kms_key_arn   = var.capture_url_kms_key_arn
  rules                     = var.rules
  more_settings             = var.more_settings
  app_ports                 = var.app_ports
  mirror_sources            = var.mirror_sources
  vnis                      = var.vnis
  metrics_address           = "0.0.0.0:9478"
  geneve_port               = local.is_network ? "off" : "6081"
  group_name                = local.group_name
  hook_name                 = local.hook_name
}

resource "aws_vpc_security_group_ingress_rule" "health" {
  security_group_id = module.machine.security_group_id
  ip_protocol       = "tcp"
  from_port         = 9478
  to_port           = 9478
  cidr_ipv4         = var.balancer_cidr
  description       = "health checks"
}

resource "aws_vpc_security_group_ingress_rule" "geneve" {
  count             = local.is_network ? 0 : 1
  security_group_id = module.machine.security_group_id
  ip_protocol       = "udp"
  from_port         = 6081
  to_port           = 6081
  cidr_ipv4         = var.balancer_cidr
  description       = "mirrored traffic in GENEVE"
}

resource "aws_lb" "this" {
  load_balancer_type               = var.load_balancer_type
  internal                         = local.is_network ? true : null
  subnets                          = var.subnet_ids
  enable_cross_zone_load_balancing = true
}

resource "aws_lb_listener" "this" {
  load_balancer_arn = aws_lb.this.arn
  protocol          = local.is_network ? "UDP" : null
  port              = local.is_network ? 4789 : null

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this.arn
  }
}

resource "aws_lb_target_group" "this" {
  vpc_id                 = var.vpc_id
  target_type            = "instance"
  protocol               = local.is_network ? "UDP" : "GENEVE"
  port                   = local.is_network ? 4789 : 6081
  deregistration_delay   = var.deregistration_delay
  connection_termination = local.is_network ? true : null

  stickiness {
    enabled = local.is_network ? var.stickiness != "none" : true
    type    = local.is_network ? "source_ip" : "source_ip_dest_ip"
  }

  # Flows of an instance that goes move at once: nothing is to be kept up for whoever only listens.
  dynamic "target_failover" {
    for_each = local.is_network ? [] : [1]
    content {
      on_deregistration = "rebalance"
      on_unhealthy      = "rebalance"
    }
  }

  health_check {
    protocol            = "HTTP"
    port                = "9478"
    path                = "/healthz"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_vpc_endpoint_service" "this" {
  count                      = local.is_network ? 0 : 1
  gateway_load_balancer_arns = [aws_lb.this.arn]
  acceptance_required        = false
}

resource "aws_vpc_endpoint" "this" {
  count             = local.is_network ? 0 : 1
  vpc_endpoint_type = "GatewayLoadBalancer"
  vpc_id            = var.vpc_id
  subnet_ids        = [var.subnet_ids[0]]
  service_name      = aws_vpc_endpoint_service.this[0].service_name
}

resource "aws_ec2_traffic_mirror_target" "this" {
  network_load_balancer_arn         = local.is_network ? aws_lb.this.arn : null
  gateway_load_balancer_endpoint_id = local.is_network ? null : aws_vpc_endpoint.this[0].id
  description                       = "vxsniff"

  depends_on = [aws_lb_listener.this]
}

resource "aws_autoscaling_group" "this" {
  name                      = local.group_name
  min_size                  = var.min_size
  max_size                  = var.max_size
  vpc_zone_identifier       = var.subnet_ids
  target_group_arns         = [aws_lb_target_group.this.arn]
  health_check_type         = "ELB"
  health_check_grace_period = 600
  metrics_granularity       = "1Minute"
  enabled_metrics           = ["GroupInServiceInstances", "GroupDesiredCapacity"]

  launch_template {
    id      = module.machine.launch_template_id
    version = module.machine.launch_template_version
  }

  # An instance goes when it has delivered what it has, or is not heard of for ten minutes.
  initial_lifecycle_hook {
    name                 = local.hook_name
    lifecycle_transition = "autoscaling:EC2_INSTANCE_TERMINATING"
    heartbeat_timeout    = 600
    default_result       = "CONTINUE"
  }

  instance_refresh {
    strategy = "Rolling"
    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 150
      instance_warmup        = 120
    }
  }
}

resource "aws_autoscaling_policy" "network" {
  name                   = "network-in"
  autoscaling_group_name = aws_autoscaling_group.this.name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = var.network_in_target
    predefined_metric_specification {
      predefined_metric_type = "ASGAverageNetworkIn"
    }
  }
}

resource "aws_autoscaling_policy" "loss" {
  name                      = "receive-loss"
  autoscaling_group_name    = aws_autoscaling_group.this.name
  policy_type               = "StepScaling"
  adjustment_type           = "ChangeInCapacity"
  estimated_instance_warmup = 120

  step_adjustment {
    metric_interval_lower_bound = 0
    scaling_adjustment          = 1
  }
}

resource "aws_cloudwatch_metric_alarm" "loss" {
  alarm_name          = "${var.name}-receive-loss"
  alarm_description   = "vxsniff loses packets: its instances are too few or too small."
  namespace           = "vxsniff"
  metric_name         = "ReceiveLossPercent"
  dimensions          = { AutoScalingGroupName = aws_autoscaling_group.this.name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 2
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.receive_loss_threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_autoscaling_policy.loss.arn]
}

module "mirror" {
  source = "../mirror"

  name           = var.name
  app_ports      = var.app_ports
  mirror_ipv6    = var.mirror_ipv6
  mirror_sources = var.mirror_sources
  session_number = var.session_number
  target_id      = aws_ec2_traffic_mirror_target.this.id
}
