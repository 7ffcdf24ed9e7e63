"""Deployment targets, one file each."""
