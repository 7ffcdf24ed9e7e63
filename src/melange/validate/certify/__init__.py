"""The search for the cheapest plan that a simulation certifies."""
