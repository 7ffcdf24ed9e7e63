"""Stage 1: how often requests of which size arrive."""
