"""Deployment targets, one file or folder each. ``docs/deploy.md`` explains how to add one."""
