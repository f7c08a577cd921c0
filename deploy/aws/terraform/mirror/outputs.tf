output "filter_id" {
  value = aws_ec2_traffic_mirror_filter.this.id
}
