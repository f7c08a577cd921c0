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

output "group_name" {
  description = "The Auto Scaling group."
  value       = aws_autoscaling_group.this.name
}

output "renew" {
  description = "Replaces the instances one by one, each after it has delivered what it has."
  value       = "aws autoscaling start-instance-refresh --auto-scaling-group-name ${aws_autoscaling_group.this.name}"
}

output "loss" {
  description = "The alarm on packets that were lost."
  value       = aws_cloudwatch_metric_alarm.loss.arn
}
