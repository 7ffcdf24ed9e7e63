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

data "aws_ec2_instance_type_offerings" "aws-us-east-1-g5-xlarge" {
  provider      = aws.us-east-1
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = ["g5.xlarge"]
  }
}

data "aws_subnets" "aws-us-east-1-g5-xlarge" {
  provider = aws.us-east-1
  for_each = toset(data.aws_ec2_instance_type_offerings.aws-us-east-1-g5-xlarge.locations)

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
    values = lookup(var.aws_subnet_ids, "aws-us-east-1-g5-xlarge", lookup(var.aws_subnet_ids, "us-east-1", ["*"]))
  }
}

locals {
  subnets_aws-us-east-1-g5-xlarge = { for zone, found in data.aws_subnets.aws-us-east-1-g5-xlarge : zone => sort(found.ids)[0] if length(found.ids) > 0 }
}

data "aws_ec2_instance_type_offerings" "aws-us-east-1-g5-xlarge-spot" {
  provider      = aws.us-east-1
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = ["g5.xlarge"]
  }
}

data "aws_subnets" "aws-us-east-1-g5-xlarge-spot" {
  provider = aws.us-east-1
  for_each = toset(data.aws_ec2_instance_type_offerings.aws-us-east-1-g5-xlarge-spot.locations)

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
    values = lookup(var.aws_subnet_ids, "aws-us-east-1-g5-xlarge-spot", lookup(var.aws_subnet_ids, "us-east-1", ["*"]))
  }
}

locals {
  subnets_aws-us-east-1-g5-xlarge-spot = { for zone, found in data.aws_subnets.aws-us-east-1-g5-xlarge-spot : zone => sort(found.ids)[0] if length(found.ids) > 0 }
}

resource "aws_lb" "aws-us-east-1-g5-xlarge" {
  provider                         = aws.us-east-1
  internal                         = true
  load_balancer_type               = "network"
  enable_cross_zone_load_balancing = true
  subnets                          = values(merge(local.subnets_aws-us-east-1-g5-xlarge, local.subnets_aws-us-east-1-g5-xlarge-spot))

  lifecycle {
    precondition {
      condition     = length(values(merge(local.subnets_aws-us-east-1-g5-xlarge, local.subnets_aws-us-east-1-g5-xlarge-spot))) > 0
      error_message = "No subnet of the VPC is in a zone that offers g5.xlarge."
    }
  }
}

resource "aws_lb_target_group" "aws-us-east-1-g5-xlarge-0" {
  provider             = aws.us-east-1
  port                 = 8000
  protocol             = "TCP"
  vpc_id               = data.aws_vpc.us-east-1.id
  deregistration_delay = 600

  health_check {
    protocol = "HTTP"
    path     = "/health"
    interval = 10
  }
}

resource "aws_lb_listener" "aws-us-east-1-g5-xlarge-0" {
  provider          = aws.us-east-1
  load_balancer_arn = aws_lb.aws-us-east-1-g5-xlarge.arn
  port              = 8000
  protocol          = "TCP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.aws-us-east-1-g5-xlarge-0.arn
  }
}

resource "aws_launch_template" "aws-us-east-1-g5-xlarge" {
  provider               = aws.us-east-1
  name_prefix            = "aws-us-east-1-g5-xlarge-"
  image_id               = data.aws_ssm_parameter.us-east-1.value
  instance_type          = "g5.xlarge"
  vpc_security_group_ids = [aws_security_group.us-east-1.id]
  user_data              = base64encode("#!/bin/sh\nHF_SECRET='${var.hf_secret}'\nHF_REGION=$(echo '${data.aws_ssm_parameter.us-east-1.arn}' | cut -d: -f4)\n${file("${path.module}/startup/aws-us-east-1-g5-xlarge.sh")}")
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

resource "aws_autoscaling_group" "aws-us-east-1-g5-xlarge" {
  provider                  = aws.us-east-1
  name_prefix               = "aws-us-east-1-g5-xlarge-"
  min_size                  = 0
  desired_capacity          = 1
  max_size                  = 2
  vpc_zone_identifier       = values(local.subnets_aws-us-east-1-g5-xlarge)
  target_group_arns         = [aws_lb_target_group.aws-us-east-1-g5-xlarge-0.arn]
  health_check_type         = "ELB"
  health_check_grace_period = 1800
  default_instance_warmup   = 1800
  capacity_rebalance        = false

  launch_template {
    id      = aws_launch_template.aws-us-east-1-g5-xlarge.id
    version = aws_launch_template.aws-us-east-1-g5-xlarge.latest_version
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
    value               = "llama-3-1-8b-aws-us-east-1-g5-xlarge"
    propagate_at_launch = true
  }

  tag {
    key                 = "melange-service"
    value               = "llama-3-1-8b"
    propagate_at_launch = true
  }

  lifecycle {
    ignore_changes = [min_size, desired_capacity]
  }
}

locals {
  actions_aws-us-east-1-g5-xlarge = {
    "55 12 * * *" = 1
    "0 15 * * *"  = 0
  }
}

resource "aws_autoscaling_schedule" "aws-us-east-1-g5-xlarge" {
  provider               = aws.us-east-1
  for_each               = local.actions_aws-us-east-1-g5-xlarge
  autoscaling_group_name = aws_autoscaling_group.aws-us-east-1-g5-xlarge.name
  scheduled_action_name  = replace(replace(each.key, " ", "-"), "*", "x")
  recurrence             = each.key
  time_zone              = "Europe/Berlin"
  min_size               = each.value
  desired_capacity       = each.value
  max_size               = -1
}

resource "aws_launch_template" "aws-us-east-1-g5-xlarge-spot" {
  provider               = aws.us-east-1
  name_prefix            = "aws-us-east-1-g5-xlarge-spot-"
  image_id               = data.aws_ssm_parameter.us-east-1.value
  instance_type          = "g5.xlarge"
  vpc_security_group_ids = [aws_security_group.us-east-1.id]
  user_data              = base64encode("#!/bin/sh\nHF_SECRET='${var.hf_secret}'\nHF_REGION=$(echo '${data.aws_ssm_parameter.us-east-1.arn}' | cut -d: -f4)\n${file("${path.module}/startup/aws-us-east-1-g5-xlarge-spot.sh")}")
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

  instance_market_options {
    market_type = "spot"
  }
}

resource "aws_autoscaling_group" "aws-us-east-1-g5-xlarge-spot" {
  provider                  = aws.us-east-1
  name_prefix               = "aws-us-east-1-g5-xlarge-spot-"
  min_size                  = 0
  desired_capacity          = 1
  max_size                  = 2
  vpc_zone_identifier       = values(local.subnets_aws-us-east-1-g5-xlarge-spot)
  target_group_arns         = [aws_lb_target_group.aws-us-east-1-g5-xlarge-0.arn]
  health_check_type         = "ELB"
  health_check_grace_period = 1800
  default_instance_warmup   = 1800
  capacity_rebalance        = true

  launch_template {
    id      = aws_launch_template.aws-us-east-1-g5-xlarge-spot.id
    version = aws_launch_template.aws-us-east-1-g5-xlarge-spot.latest_version
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
    value               = "llama-3-1-8b-aws-us-east-1-g5-xlarge-spot"
    propagate_at_launch = true
  }

  tag {
    key                 = "melange-service"
    value               = "llama-3-1-8b"
    propagate_at_launch = true
  }

  lifecycle {
    ignore_changes = [min_size, desired_capacity]
  }
}

locals {
  actions_aws-us-east-1-g5-xlarge-spot = {
    "55 9 * * *"  = 1
    "0 11 * * *"  = 0
    "55 16 * * *" = 1
    "0 18 * * *"  = 0
    "55 18 * * *" = 1
    "0 23 * * *"  = 0
  }
}

resource "aws_autoscaling_schedule" "aws-us-east-1-g5-xlarge-spot" {
  provider               = aws.us-east-1
  for_each               = local.actions_aws-us-east-1-g5-xlarge-spot
  autoscaling_group_name = aws_autoscaling_group.aws-us-east-1-g5-xlarge-spot.name
  scheduled_action_name  = replace(replace(each.key, " ", "-"), "*", "x")
  recurrence             = each.key
  time_zone              = "Europe/Berlin"
  min_size               = each.value
  desired_capacity       = each.value
  max_size               = -1
}

data "aws_ec2_instance_type_offerings" "aws-us-east-1-p5-4xlarge" {
  provider      = aws.us-east-1
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = ["p5.4xlarge"]
  }
}

data "aws_subnets" "aws-us-east-1-p5-4xlarge" {
  provider = aws.us-east-1
  for_each = toset(data.aws_ec2_instance_type_offerings.aws-us-east-1-p5-4xlarge.locations)

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
    values = lookup(var.aws_subnet_ids, "aws-us-east-1-p5-4xlarge", lookup(var.aws_subnet_ids, "us-east-1", ["*"]))
  }
}

locals {
  subnets_aws-us-east-1-p5-4xlarge = { for zone, found in data.aws_subnets.aws-us-east-1-p5-4xlarge : zone => sort(found.ids)[0] if length(found.ids) > 0 }
}

data "aws_ec2_instance_type_offerings" "aws-us-east-1-p5-4xlarge-spot" {
  provider      = aws.us-east-1
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = ["p5.4xlarge"]
  }
}

data "aws_subnets" "aws-us-east-1-p5-4xlarge-spot" {
  provider = aws.us-east-1
  for_each = toset(data.aws_ec2_instance_type_offerings.aws-us-east-1-p5-4xlarge-spot.locations)

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
    values = lookup(var.aws_subnet_ids, "aws-us-east-1-p5-4xlarge-spot", lookup(var.aws_subnet_ids, "us-east-1", ["*"]))
  }
}

locals {
  subnets_aws-us-east-1-p5-4xlarge-spot = { for zone, found in data.aws_subnets.aws-us-east-1-p5-4xlarge-spot : zone => sort(found.ids)[0] if length(found.ids) > 0 }
}

data "aws_ec2_instance_type_offerings" "aws-us-east-1-p5-4xlarge-reserved" {
  provider      = aws.us-east-1
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = ["p5.4xlarge"]
  }
}

data "aws_subnets" "aws-us-east-1-p5-4xlarge-reserved" {
  provider = aws.us-east-1
  for_each = toset(data.aws_ec2_instance_type_offerings.aws-us-east-1-p5-4xlarge-reserved.locations)

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
    values = lookup(var.aws_subnet_ids, "aws-us-east-1-p5-4xlarge-reserved", lookup(var.aws_subnet_ids, "us-east-1", ["*"]))
  }
}

locals {
  subnets_aws-us-east-1-p5-4xlarge-reserved = { for zone, found in data.aws_subnets.aws-us-east-1-p5-4xlarge-reserved : zone => sort(found.ids)[0] if length(found.ids) > 0 }
}

resource "aws_lb" "aws-us-east-1-p5-4xlarge" {
  provider                         = aws.us-east-1
  internal                         = true
  load_balancer_type               = "network"
  enable_cross_zone_load_balancing = true
  subnets                          = values(merge(local.subnets_aws-us-east-1-p5-4xlarge, local.subnets_aws-us-east-1-p5-4xlarge-spot, local.subnets_aws-us-east-1-p5-4xlarge-reserved))

  lifecycle {
    precondition {
      condition     = length(values(merge(local.subnets_aws-us-east-1-p5-4xlarge, local.subnets_aws-us-east-1-p5-4xlarge-spot, local.subnets_aws-us-east-1-p5-4xlarge-reserved))) > 0
      error_message = "No subnet of the VPC is in a zone that offers p5.4xlarge."
    }
  }
}

resource "aws_lb_target_group" "aws-us-east-1-p5-4xlarge-0" {
  provider             = aws.us-east-1
  port                 = 8000
  protocol             = "TCP"
  vpc_id               = data.aws_vpc.us-east-1.id
  deregistration_delay = 600

  health_check {
    protocol = "HTTP"
    path     = "/health"
    interval = 10
  }
}

resource "aws_lb_listener" "aws-us-east-1-p5-4xlarge-0" {
  provider          = aws.us-east-1
  load_balancer_arn = aws_lb.aws-us-east-1-p5-4xlarge.arn
  port              = 8000
  protocol          = "TCP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.aws-us-east-1-p5-4xlarge-0.arn
  }
}

resource "aws_launch_template" "aws-us-east-1-p5-4xlarge" {
  provider               = aws.us-east-1
  name_prefix            = "aws-us-east-1-p5-4xlarge-"
  image_id               = data.aws_ssm_parameter.us-east-1.value
  instance_type          = "p5.4xlarge"
  vpc_security_group_ids = [aws_security_group.us-east-1.id]
  user_data              = base64encode("#!/bin/sh\nHF_SECRET='${var.hf_secret}'\nHF_REGION=$(echo '${data.aws_ssm_parameter.us-east-1.arn}' | cut -d: -f4)\n${file("${path.module}/startup/aws-us-east-1-p5-4xlarge.sh")}")
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

resource "aws_autoscaling_group" "aws-us-east-1-p5-4xlarge" {
  provider                  = aws.us-east-1
  name_prefix               = "aws-us-east-1-p5-4xlarge-"
  min_size                  = 0
  desired_capacity          = 1
  max_size                  = 2
  vpc_zone_identifier       = values(local.subnets_aws-us-east-1-p5-4xlarge)
  target_group_arns         = [aws_lb_target_group.aws-us-east-1-p5-4xlarge-0.arn]
  health_check_type         = "ELB"
  health_check_grace_period = 1800
  default_instance_warmup   = 1800
  capacity_rebalance        = false

  launch_template {
    id      = aws_launch_template.aws-us-east-1-p5-4xlarge.id
    version = aws_launch_template.aws-us-east-1-p5-4xlarge.latest_version
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
    value               = "llama-3-1-8b-aws-us-east-1-p5-4xlarge"
    propagate_at_launch = true
  }

  tag {
    key                 = "melange-service"
    value               = "llama-3-1-8b"
    propagate_at_launch = true
  }

  lifecycle {
    ignore_changes = [min_size, desired_capacity]
  }
}

locals {
  actions_aws-us-east-1-p5-4xlarge = {
    "55 14 * * *" = 1
    "0 17 * * *"  = 0
  }
}

resource "aws_autoscaling_schedule" "aws-us-east-1-p5-4xlarge" {
  provider               = aws.us-east-1
  for_each               = local.actions_aws-us-east-1-p5-4xlarge
  autoscaling_group_name = aws_autoscaling_group.aws-us-east-1-p5-4xlarge.name
  scheduled_action_name  = replace(replace(each.key, " ", "-"), "*", "x")
  recurrence             = each.key
  time_zone              = "Europe/Berlin"
  min_size               = each.value
  desired_capacity       = each.value
  max_size               = -1
}

resource "aws_launch_template" "aws-us-east-1-p5-4xlarge-spot" {
  provider               = aws.us-east-1
  name_prefix            = "aws-us-east-1-p5-4xlarge-spot-"
  image_id               = data.aws_ssm_parameter.us-east-1.value
  instance_type          = "p5.4xlarge"
  vpc_security_group_ids = [aws_security_group.us-east-1.id]
  user_data              = base64encode("#!/bin/sh\nHF_SECRET='${var.hf_secret}'\nHF_REGION=$(echo '${data.aws_ssm_parameter.us-east-1.arn}' | cut -d: -f4)\n${file("${path.module}/startup/aws-us-east-1-p5-4xlarge-spot.sh")}")
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

  instance_market_options {
    market_type = "spot"
  }
}

resource "aws_autoscaling_group" "aws-us-east-1-p5-4xlarge-spot" {
  provider                  = aws.us-east-1
  name_prefix               = "aws-us-east-1-p5-4xlarge-spot-"
  min_size                  = 0
  desired_capacity          = 1
  max_size                  = 2
  vpc_zone_identifier       = values(local.subnets_aws-us-east-1-p5-4xlarge-spot)
  target_group_arns         = [aws_lb_target_group.aws-us-east-1-p5-4xlarge-0.arn]
  health_check_type         = "ELB"
  health_check_grace_period = 1800
  default_instance_warmup   = 1800
  capacity_rebalance        = true

  launch_template {
    id      = aws_launch_template.aws-us-east-1-p5-4xlarge-spot.id
    version = aws_launch_template.aws-us-east-1-p5-4xlarge-spot.latest_version
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
    value               = "llama-3-1-8b-aws-us-east-1-p5-4xlarge-spot"
    propagate_at_launch = true
  }

  tag {
    key                 = "melange-service"
    value               = "llama-3-1-8b"
    propagate_at_launch = true
  }

  lifecycle {
    ignore_changes = [min_size, desired_capacity]
  }
}

locals {
  actions_aws-us-east-1-p5-4xlarge-spot = {
    "55 13 * * *" = 1
    "0 15 * * *"  = 0
    "55 15 * * *" = 1
    "0 17 * * *"  = 0
  }
}

resource "aws_autoscaling_schedule" "aws-us-east-1-p5-4xlarge-spot" {
  provider               = aws.us-east-1
  for_each               = local.actions_aws-us-east-1-p5-4xlarge-spot
  autoscaling_group_name = aws_autoscaling_group.aws-us-east-1-p5-4xlarge-spot.name
  scheduled_action_name  = replace(replace(each.key, " ", "-"), "*", "x")
  recurrence             = each.key
  time_zone              = "Europe/Berlin"
  min_size               = each.value
  desired_capacity       = each.value
  max_size               = -1
}

resource "aws_launch_template" "aws-us-east-1-p5-4xlarge-reserved" {
  provider               = aws.us-east-1
  name_prefix            = "aws-us-east-1-p5-4xlarge-reserved-"
  image_id               = data.aws_ssm_parameter.us-east-1.value
  instance_type          = "p5.4xlarge"
  vpc_security_group_ids = [aws_security_group.us-east-1.id]
  user_data              = base64encode("#!/bin/sh\nHF_SECRET='${var.hf_secret}'\nHF_REGION=$(echo '${data.aws_ssm_parameter.us-east-1.arn}' | cut -d: -f4)\n${file("${path.module}/startup/aws-us-east-1-p5-4xlarge-reserved.sh")}")
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

  capacity_reservation_specification {
    capacity_reservation_preference = lookup(var.aws_capacity_reservations, "aws-us-east-1-p5-4xlarge-reserved", "") == "" ? "open" : null

    dynamic "capacity_reservation_target" {
      for_each = compact([lookup(var.aws_capacity_reservations, "aws-us-east-1-p5-4xlarge-reserved", "")])

      content {
        capacity_reservation_id = capacity_reservation_target.value
      }
    }
  }
}

resource "aws_autoscaling_group" "aws-us-east-1-p5-4xlarge-reserved" {
  provider                  = aws.us-east-1
  name_prefix               = "aws-us-east-1-p5-4xlarge-reserved-"
  min_size                  = 1
  desired_capacity          = 1
  max_size                  = 2
  vpc_zone_identifier       = values(local.subnets_aws-us-east-1-p5-4xlarge-reserved)
  target_group_arns         = [aws_lb_target_group.aws-us-east-1-p5-4xlarge-0.arn]
  health_check_type         = "ELB"
  health_check_grace_period = 1800
  default_instance_warmup   = 1800
  capacity_rebalance        = false

  launch_template {
    id      = aws_launch_template.aws-us-east-1-p5-4xlarge-reserved.id
    version = aws_launch_template.aws-us-east-1-p5-4xlarge-reserved.latest_version
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
    value               = "llama-3-1-8b-aws-us-east-1-p5-4xlarge-reserved"
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

data "aws_ec2_instance_type_offerings" "aws-us-east-1-g6e-xlarge-spot" {
  provider      = aws.us-east-1
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = ["g6e.xlarge"]
  }
}

data "aws_subnets" "aws-us-east-1-g6e-xlarge-spot" {
  provider = aws.us-east-1
  for_each = toset(data.aws_ec2_instance_type_offerings.aws-us-east-1-g6e-xlarge-spot.locations)

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
    values = lookup(var.aws_subnet_ids, "aws-us-east-1-g6e-xlarge-spot", lookup(var.aws_subnet_ids, "us-east-1", ["*"]))
  }
}

locals {
  subnets_aws-us-east-1-g6e-xlarge-spot = { for zone, found in data.aws_subnets.aws-us-east-1-g6e-xlarge-spot : zone => sort(found.ids)[0] if length(found.ids) > 0 }
}

data "aws_ec2_instance_type_offerings" "aws-us-east-1-g6e-xlarge-reserved" {
  provider      = aws.us-east-1
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = ["g6e.xlarge"]
  }
}

data "aws_subnets" "aws-us-east-1-g6e-xlarge-reserved" {
  provider = aws.us-east-1
  for_each = toset(data.aws_ec2_instance_type_offerings.aws-us-east-1-g6e-xlarge-reserved.locations)

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
    values = lookup(var.aws_subnet_ids, "aws-us-east-1-g6e-xlarge-reserved", lookup(var.aws_subnet_ids, "us-east-1", ["*"]))
  }
}

locals {
  subnets_aws-us-east-1-g6e-xlarge-reserved = { for zone, found in data.aws_subnets.aws-us-east-1-g6e-xlarge-reserved : zone => sort(found.ids)[0] if length(found.ids) > 0 }
}

resource "aws_lb" "aws-us-east-1-g6e-xlarge" {
  provider                         = aws.us-east-1
  internal                         = true
  load_balancer_type               = "network"
  enable_cross_zone_load_balancing = true
  subnets                          = values(merge(local.subnets_aws-us-east-1-g6e-xlarge, local.subnets_aws-us-east-1-g6e-xlarge-spot, local.subnets_aws-us-east-1-g6e-xlarge-reserved))

  lifecycle {
    precondition {
      condition     = length(values(merge(local.subnets_aws-us-east-1-g6e-xlarge, local.subnets_aws-us-east-1-g6e-xlarge-spot, local.subnets_aws-us-east-1-g6e-xlarge-reserved))) > 0
      error_message = "No subnet of the VPC is in a zone that offers g6e.xlarge."
    }
  }
}

resource "aws_lb_target_group" "aws-us-east-1-g6e-xlarge-0" {
  provider             = aws.us-east-1
  port                 = 8000
  protocol             = "TCP"
  vpc_id               = data.aws_vpc.us-east-1.id
  deregistration_delay = 600

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
  min_size                  = 0
  desired_capacity          = 3
  max_size                  = 4
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

  lifecycle {
    ignore_changes = [min_size, desired_capacity]
  }
}

locals {
  actions_aws-us-east-1-g6e-xlarge = {
    "55 10 * * *" = 1
    "55 11 * * *" = 2
    "55 13 * * *" = 3
    "0 15 * * *"  = 0
    "55 16 * * *" = 3
    "0 18 * * *"  = 2
    "0 19 * * *"  = 0
  }
}

resource "aws_autoscaling_schedule" "aws-us-east-1-g6e-xlarge" {
  provider               = aws.us-east-1
  for_each               = local.actions_aws-us-east-1-g6e-xlarge
  autoscaling_group_name = aws_autoscaling_group.aws-us-east-1-g6e-xlarge.name
  scheduled_action_name  = replace(replace(each.key, " ", "-"), "*", "x")
  recurrence             = each.key
  time_zone              = "Europe/Berlin"
  min_size               = each.value
  desired_capacity       = each.value
  max_size               = -1
}

resource "aws_launch_template" "aws-us-east-1-g6e-xlarge-spot" {
  provider               = aws.us-east-1
  name_prefix            = "aws-us-east-1-g6e-xlarge-spot-"
  image_id               = data.aws_ssm_parameter.us-east-1.value
  instance_type          = "g6e.xlarge"
  vpc_security_group_ids = [aws_security_group.us-east-1.id]
  user_data              = base64encode("#!/bin/sh\nHF_SECRET='${var.hf_secret}'\nHF_REGION=$(echo '${data.aws_ssm_parameter.us-east-1.arn}' | cut -d: -f4)\n${file("${path.module}/startup/aws-us-east-1-g6e-xlarge-spot.sh")}")
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

  instance_market_options {
    market_type = "spot"
  }
}

resource "aws_autoscaling_group" "aws-us-east-1-g6e-xlarge-spot" {
  provider                  = aws.us-east-1
  name_prefix               = "aws-us-east-1-g6e-xlarge-spot-"
  min_size                  = 0
  desired_capacity          = 8
  max_size                  = 9
  vpc_zone_identifier       = values(local.subnets_aws-us-east-1-g6e-xlarge-spot)
  target_group_arns         = [aws_lb_target_group.aws-us-east-1-g6e-xlarge-0.arn]
  health_check_type         = "ELB"
  health_check_grace_period = 1800
  default_instance_warmup   = 1800
  capacity_rebalance        = true

  launch_template {
    id      = aws_launch_template.aws-us-east-1-g6e-xlarge-spot.id
    version = aws_launch_template.aws-us-east-1-g6e-xlarge-spot.latest_version
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
    value               = "llama-3-1-8b-aws-us-east-1-g6e-xlarge-spot"
    propagate_at_launch = true
  }

  tag {
    key                 = "melange-service"
    value               = "llama-3-1-8b"
    propagate_at_launch = true
  }

  lifecycle {
    ignore_changes = [min_size, desired_capacity]
  }
}

locals {
  actions_aws-us-east-1-g6e-xlarge-spot = {
    "55 8 * * *"  = 1
    "55 9 * * *"  = 3
    "55 10 * * *" = 4
    "55 11 * * *" = 5
    "55 12 * * *" = 6
    "0 14 * * *"  = 4
    "55 14 * * *" = 8
    "0 16 * * *"  = 4
    "55 16 * * *" = 6
    "0 18 * * *"  = 5
    "0 19 * * *"  = 1
    "0 20 * * *"  = 0
    "55 20 * * *" = 1
    "0 23 * * *"  = 0
  }
}

resource "aws_autoscaling_schedule" "aws-us-east-1-g6e-xlarge-spot" {
  provider               = aws.us-east-1
  for_each               = local.actions_aws-us-east-1-g6e-xlarge-spot
  autoscaling_group_name = aws_autoscaling_group.aws-us-east-1-g6e-xlarge-spot.name
  scheduled_action_name  = replace(replace(each.key, " ", "-"), "*", "x")
  recurrence             = each.key
  time_zone              = "Europe/Berlin"
  min_size               = each.value
  desired_capacity       = each.value
  max_size               = -1
}

resource "aws_launch_template" "aws-us-east-1-g6e-xlarge-reserved" {
  provider               = aws.us-east-1
  name_prefix            = "aws-us-east-1-g6e-xlarge-reserved-"
  image_id               = data.aws_ssm_parameter.us-east-1.value
  instance_type          = "g6e.xlarge"
  vpc_security_group_ids = [aws_security_group.us-east-1.id]
  user_data              = base64encode("#!/bin/sh\nHF_SECRET='${var.hf_secret}'\nHF_REGION=$(echo '${data.aws_ssm_parameter.us-east-1.arn}' | cut -d: -f4)\n${file("${path.module}/startup/aws-us-east-1-g6e-xlarge-reserved.sh")}")
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

  capacity_reservation_specification {
    capacity_reservation_preference = lookup(var.aws_capacity_reservations, "aws-us-east-1-g6e-xlarge-reserved", "") == "" ? "open" : null

    dynamic "capacity_reservation_target" {
      for_each = compact([lookup(var.aws_capacity_reservations, "aws-us-east-1-g6e-xlarge-reserved", "")])

      content {
        capacity_reservation_id = capacity_reservation_target.value
      }
    }
  }
}

resource "aws_autoscaling_group" "aws-us-east-1-g6e-xlarge-reserved" {
  provider                  = aws.us-east-1
  name_prefix               = "aws-us-east-1-g6e-xlarge-reserved-"
  min_size                  = 1
  desired_capacity          = 1
  max_size                  = 2
  vpc_zone_identifier       = values(local.subnets_aws-us-east-1-g6e-xlarge-reserved)
  target_group_arns         = [aws_lb_target_group.aws-us-east-1-g6e-xlarge-0.arn]
  health_check_type         = "ELB"
  health_check_grace_period = 1800
  default_instance_warmup   = 1800
  capacity_rebalance        = false

  launch_template {
    id      = aws_launch_template.aws-us-east-1-g6e-xlarge-reserved.id
    version = aws_launch_template.aws-us-east-1-g6e-xlarge-reserved.latest_version
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
    value               = "llama-3-1-8b-aws-us-east-1-g6e-xlarge-reserved"
    propagate_at_launch = true
  }

  tag {
    key                 = "melange-service"
    value               = "llama-3-1-8b"
    propagate_at_launch = true
  }
}
