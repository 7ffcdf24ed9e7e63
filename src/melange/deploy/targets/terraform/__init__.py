"""Terraform and OpenTofu: one group of instances per replica type, on AWS and Google Cloud."""
