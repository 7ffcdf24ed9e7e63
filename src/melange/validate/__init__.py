"""Stage 4: simulate a plan request by request, and report the share that met the SLO."""
