output "mirror_target_id" {
  description = "The mirror target, for further sessions."
  value       = aws_ec2_traffic_mirror_target.this.id
}

output "mirror_filter_id" {
  description = "The mirror filter, for further sessions."
  value       = module.mirror.filter_id
}

output "security_group_id" {
  description = "The security group of the target. Sources with restricted egress must be let out to it, UDP 4789."
  value       = module.machine.security_group_id
}

output "set_capture_url" {
  description = "Sets where calls go. It takes effect within a minute."
  value       = "aws ssm put-parameter --overwrite --type SecureString --name ${var.capture_url_parameter} --value URL"
}

output "instance_id" {
  description = "The instance of vxsniff."
  value       = aws_instance.this.id
}

output "log" {
  description = "Shows the end of the log of the first start, if something is wrong."
  value       = "aws ec2 get-console-output --latest --output text --instance-id ${aws_instance.this.id}"
}

output "metrics" {
  description = "The ledger, from metrics_cidr."
  value       = "http://${aws_network_interface.this.private_ip}:9478/metrics"
}
