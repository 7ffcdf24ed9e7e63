"""Stage 4: play a plan out, request by request, and say what share of them met the SLO."""
