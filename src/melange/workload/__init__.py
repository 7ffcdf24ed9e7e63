"""Stage 1: request rates by size."""
