"""Several services at once, each with a fleet of its own, on pools of accelerators that they share."""
