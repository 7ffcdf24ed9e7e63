"""Planning over time: what to reserve, and how the rest follows the traffic."""
