"""Monitoring of a plan in production: dashboards and alert rules."""
