"""Terraform and OpenTofu: a group of instances a replica type, on AWS and Google Cloud."""
