"""Plans in two pools, for prompts and for tokens: how each is planned, and what both together hold."""
