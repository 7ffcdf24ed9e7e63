resource "aws_iam_role" "replica" {
  provider           = aws.us-east-1
  name_prefix        = "llama-3-1-8b-"
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "ec2.amazonaws.com" } }] })
}

resource "aws_iam_role_policy" "secret" {
  provider = aws.us-east-1
  count    = var.hf_secret == "" ? 0 : 1
  role     = aws_iam_role.replica.id
  policy   = jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Allow", Action = "secretsmanager:GetSecretValue", Resource = "arn:*:secretsmanager:*:*:secret:${var.hf_secret}-*" }] })
}

resource "aws_iam_instance_profile" "replica" {
  provider    = aws.us-east-1
  name_prefix = "llama-3-1-8b-"
  role        = aws_iam_role.replica.name
}

data "aws_vpc" "us-east-1" {
  provider = aws.us-east-1
  id       = lookup(var.aws_vpc_ids, "us-east-1", null)
  default  = lookup(var.aws_vpc_ids, "us-east-1", null) == null ? true : null
}

data "aws_ssm_parameter" "us-east-1" {
  provider = aws.us-east-1
  name     = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
}

resource "aws_security_group" "us-east-1" {
  provider    = aws.us-east-1
  name_prefix = "llama-3-1-8b-"
  vpc_id      = data.aws_vpc.us-east-1.id

  ingress {
    description = "requests and health checks from within the network"
    from_port   = 8000
    to_port     = 8000
    protocol    = "tcp"
    cidr_blocks = [data.aws_vpc.us-east-1.cidr_block]
  }

  egress {
    description = "images and weights"
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

data "aws_ec2_instance_type_offerings" "aws-us-east-1-g6-xlarge" {
  provider      = aws.us-east-1
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = ["g6.xlarge"]
  }
}

data "aws_subnets" "aws-us-east-1-g6-xlarge" {
  provider = aws.us-east-1
  for_each = toset(data.aws_ec2_instance_type_offerings.aws-us-east-1-g6-xlarge.locations)

  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.us-east-1.id]
  }

  filter {
    name   = "availability-zone"
    values = [each.key]
  }

  filter {
    name   = "subnet-id"
    values = lookup(var.aws_subnet_ids, "aws-us-east-1-g6-xlarge", lookup(var.aws_subnet_ids, "us-east-1", ["*"]))
  }
}

locals {
  subnets_aws-us-east-1-g6-xlarge = { for zone, found in data.aws_subnets.aws-us-east-1-g6-xlarge : zone => sort(found.ids)[0] if length(found.ids) > 0 }
}

resource "aws_lb" "aws-us-east-1-g6-xlarge" {
  provider                         = aws.us-east-1
  internal                         = true
  load_balancer_type               = "network"
  enable_cross_zone_load_balancing = true
  subnets                          = values(local.subnets_aws-us-east-1-g6-xlarge)

  lifecycle {
    precondition {
      condition     = length(values(local.subnets_aws-us-east-1-g6-xlarge)) > 0
      error_message = "No subnet of the VPC is in a zone that offers g6.xlarge."
    }
  }
}

resource "aws_lb_target_group" "aws-us-east-1-g6-xlarge-0" {
  provider             = aws.us-east-1
  port                 = 8000
  protocol             = "TCP"
  vpc_id               = data.aws_vpc.us-east-1.id
  deregistration_delay = 164

  health_check {
    protocol = "HTTP"
    path     = "/health"
    interval = 10
  }
}

resource "aws_lb_listener" "aws-us-east-1-g6-xlarge-0" {
  provider          = aws.us-east-1
  load_balancer_arn = aws_lb.aws-us-east-1-g6-xlarge.arn
  port              = 8000
  protocol          = "TCP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.aws-us-east-1-g6-xlarge-0.arn
  }
}

resource "aws_launch_template" "aws-us-east-1-g6-xlarge" {
  provider               = aws.us-east-1
  name_prefix            = "aws-us-east-1-g6-xlarge-"
  image_id               = data.aws_ssm_parameter.us-east-1.value
  instance_type          = "g6.xlarge"
  vpc_security_group_ids = [aws_security_group.us-east-1.id]
  user_data              = base64encode("#!/bin/sh\nHF_SECRET='${var.hf_secret}'\nHF_REGION=$(echo '${data.aws_ssm_parameter.us-east-1.arn}' | cut -d: -f4)\n${file("${path.module}/startup/aws-us-east-1-g6-xlarge.sh")}")
  update_default_version = true

  iam_instance_profile {
    arn = aws_iam_instance_profile.replica.arn
  }

  metadata_options {
    http_tokens = "required"
  }

  block_device_mappings {
    device_name = "/dev/sda1"

    ebs {
      volume_size = 300
      volume_type = "gp3"
    }
  }
}

resource "aws_autoscaling_group" "aws-us-east-1-g6-xlarge" {
  provider                  = aws.us-east-1
  name_prefix               = "aws-us-east-1-g6-xlarge-"
  min_size                  = 1
  desired_capacity          = 1
  max_size                  = 2
  vpc_zone_identifier       = values(local.subnets_aws-us-east-1-g6-xlarge)
  target_group_arns         = [aws_lb_target_group.aws-us-east-1-g6-xlarge-0.arn]
  health_check_type         = "ELB"
  health_check_grace_period = 1800
  default_instance_warmup   = 1800
  capacity_rebalance        = false

  launch_template {
    id      = aws_launch_template.aws-us-east-1-g6-xlarge.id
    version = aws_launch_template.aws-us-east-1-g6-xlarge.latest_version
  }

  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 110
    }
  }

  tag {
    key                 = "Name"
    value               = "llama-3-1-8b-aws-us-east-1-g6-xlarge"
    propagate_at_launch = true
  }

  tag {
    key                 = "melange-service"
    value               = "llama-3-1-8b"
    propagate_at_launch = true
  }
}

data "aws_ec2_instance_type_offerings" "aws-us-east-1-g6e-xlarge" {
  provider      = aws.us-east-1
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = ["g6e.xlarge"]
  }
}

data "aws_subnets" "aws-us-east-1-g6e-xlarge" {
  provider = aws.us-east-1
  for_each = toset(data.aws_ec2_instance_type_offerings.aws-us-east-1-g6e-xlarge.locations)

  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.us-east-1.id]
  }

  filter {
    name   = "availability-zone"
    values = [each.key]
  }

  filter {
    name   = "subnet-id"
    values = lookup(var.aws_subnet_ids, "aws-us-east-1-g6e-xlarge", lookup(var.aws_subnet_ids, "us-east-1", ["*"]))
  }
}

locals {
  subnets_aws-us-east-1-g6e-xlarge = { for zone, found in data.aws_subnets.aws-us-east-1-g6e-xlarge : zone => sort(found.ids)[0] if length(found.ids) > 0 }
}

resource "aws_lb" "aws-us-east-1-g6e-xlarge" {
  provider                         = aws.us-east-1
  internal                         = true
  load_balancer_type               = "network"
  enable_cross_zone_load_balancing = true
  subnets                          = values(local.subnets_aws-us-east-1-g6e-xlarge)

  lifecycle {
    precondition {
      condition     = length(values(local.subnets_aws-us-east-1-g6e-xlarge)) > 0
      error_message = "No subnet of the VPC is in a zone that offers g6e.xlarge."
    }
  }
}

resource "aws_lb_target_group" "aws-us-east-1-g6e-xlarge-0" {
  provider             = aws.us-east-1
  port                 = 8000
  protocol             = "TCP"
  vpc_id               = data.aws_vpc.us-east-1.id
  deregistration_delay = 164

  health_check {
    protocol = "HTTP"
    path     = "/health"
    interval = 10
  }
}

resource "aws_lb_listener" "aws-us-east-1-g6e-xlarge-0" {
  provider          = aws.us-east-1
  load_balancer_arn = aws_lb.aws-us-east-1-g6e-xlarge.arn
  port              = 8000
  protocol          = "TCP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.aws-us-east-1-g6e-xlarge-0.arn
  }
}

resource "aws_launch_template" "aws-us-east-1-g6e-xlarge" {
  provider               = aws.us-east-1
  name_prefix            = "aws-us-east-1-g6e-xlarge-"
  image_id               = data.aws_ssm_parameter.us-east-1.value
  instance_type          = "g6e.xlarge"
  vpc_security_group_ids = [aws_security_group.us-east-1.id]
  user_data              = base64encode("#!/bin/sh\nHF_SECRET='${var.hf_secret}'\nHF_REGION=$(echo '${data.aws_ssm_parameter.us-east-1.arn}' | cut -d: -f4)\n${file("${path.module}/startup/aws-us-east-1-g6e-xlarge.sh")}")
  update_default_version = true

  iam_instance_profile {
    arn = aws_iam_instance_profile.replica.arn
  }

  metadata_options {
    http_tokens = "required"
  }

  block_device_mappings {
    device_name = "/dev/sda1"

    ebs {
      volume_size = 300
      volume_type = "gp3"
    }
  }
}

resource "aws_autoscaling_group" "aws-us-east-1-g6e-xlarge" {
  provider                  = aws.us-east-1
  name_prefix               = "aws-us-east-1-g6e-xlarge-"
  min_size                  = 6
  desired_capacity          = 6
  max_size                  = 7
  vpc_zone_identifier       = values(local.subnets_aws-us-east-1-g6e-xlarge)
  target_group_arns         = [aws_lb_target_group.aws-us-east-1-g6e-xlarge-0.arn]
  health_check_type         = "ELB"
  health_check_grace_period = 1800
  default_instance_warmup   = 1800
  capacity_rebalance        = false

  launch_template {
    id      = aws_launch_template.aws-us-east-1-g6e-xlarge.id
    version = aws_launch_template.aws-us-east-1-g6e-xlarge.latest_version
  }

  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 110
    }
  }

  tag {
    key                 = "Name"
    value               = "llama-3-1-8b-aws-us-east-1-g6e-xlarge"
    propagate_at_launch = true
  }

  tag {
    key                 = "melange-service"
    value               = "llama-3-1-8b"
    propagate_at_launch = true
  }
}
