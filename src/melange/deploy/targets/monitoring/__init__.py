"""What is to be watched of a plan in production: dashboards and alert rules."""
