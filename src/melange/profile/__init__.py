"""Stage 2: what one replica of each type can serve within the SLO."""
