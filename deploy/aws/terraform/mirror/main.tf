# What is mirrored to a target: a filter for TCP to and from the ports of the applications, and a session for each source.

locals {
  # A port is 80 or 8000-8010. A filter has ten rules at most.
  ports = { for slot, port in slice(var.app_ports, 0, min(length(var.app_ports), 5)) : slot => split("-", port) }
  rules = merge(
    { for slot, ends in local.ports : "ipv4-${slot}" => { ends = ends, anywhere = "0.0.0.0/0", number = 100 + tonumber(slot) } },
    var.mirror_ipv6 ? {
      for slot, ends in local.ports : "ipv6-${slot}" => { ends = ends, anywhere = "::/0", number = 200 + tonumber(slot) }
      if tonumber(slot) < 2
    } : {},
  )
  # eni-0123:101 is an interface and its session's VNI.
  sources = { for source in var.mirror_sources : split(":", source)[0] => tonumber(split(":", source)[1]) }
}

resource "aws_ec2_traffic_mirror_filter" "this" {
  description = "TCP to and from the ports of the applications"
  tags        = { Name = var.name }
}

# Requests have a port as their destination ...
resource "aws_ec2_traffic_mirror_filter_rule" "ingress" {
  for_each                 = local.rules
  traffic_mirror_filter_id = aws_ec2_traffic_mirror_filter.this.id
  traffic_direction        = "ingress"
  rule_number              = each.value.number
  rule_action              = "accept"
  protocol                 = 6
  source_cidr_block        = each.value.anywhere
  destination_cidr_block   = each.value.anywhere

  destination_port_range {
    from_port = tonumber(each.value.ends[0])
    to_port   = tonumber(each.value.ends[length(each.value.ends) - 1])
  }
}

# ... and responses as their source.
resource "aws_ec2_traffic_mirror_filter_rule" "egress" {
  for_each                 = local.rules
  traffic_mirror_filter_id = aws_ec2_traffic_mirror_filter.this.id
  traffic_direction        = "egress"
  rule_number              = each.value.number
  rule_action              = "accept"
  protocol                 = 6
  source_cidr_block        = each.value.anywhere
  destination_cidr_block   = each.value.anywhere

  source_port_range {
    from_port = tonumber(each.value.ends[0])
    to_port   = tonumber(each.value.ends[length(each.value.ends) - 1])
  }
}

resource "aws_ec2_traffic_mirror_session" "this" {
  for_each                 = local.sources
  network_interface_id     = each.key
  virtual_network_id       = each.value
  session_number           = var.session_number
  traffic_mirror_target_id = var.target_id
  traffic_mirror_filter_id = aws_ec2_traffic_mirror_filter.this.id
  description              = "vxsniff"
}
