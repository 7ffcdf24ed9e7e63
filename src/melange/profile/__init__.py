"""Stage 2: the rate that one replica of each type serves within the SLO."""
