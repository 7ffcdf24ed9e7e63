output "replica_flags" {
  description = "Addresses of the replicas, as flags of melange deploy --to haproxy."
  value       = join(" ", ["--replica aws/us-east-1/g5.xlarge=http://${aws_lb.aws-us-east-1-g5-xlarge.dns_name}:8000", "--replica aws/us-east-1/p5.4xlarge=http://${aws_lb.aws-us-east-1-p5-4xlarge.dns_name}:8000", "--replica aws/us-east-1/g6e.xlarge=http://${aws_lb.aws-us-east-1-g6e-xlarge.dns_name}:8000"])
}
