# vxsniff as a traffic mirror target on one instance, with the mirror sessions of given network interfaces.

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
  metrics_address           = "${var.metrics_cidr == "" ? "127.0.0.1" : "0.0.0.0"}:9478"
  geneve_port               = "off"
  group_name                = ""
  hook_name                 = ""
}

# The mirror target is this interface: an instance that takes another's place takes the interface with it.
resource "aws_network_interface" "this" {
  subnet_id       = var.subnet_id
  security_groups = [module.machine.security_group_id]
  description     = "mirrored traffic to vxsniff"
}

resource "aws_instance" "this" {
  launch_template {
    id      = module.machine.launch_template_id
    version = module.machine.launch_template_version
  }

  network_interface {
    device_index         = 0
    network_interface_id = aws_network_interface.this.id
  }
}

resource "aws_ec2_traffic_mirror_target" "this" {
  network_interface_id = aws_network_interface.this.id
  description          = "vxsniff"
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
