"""The page for deciding on a fleet: a local server, its controls, and the answers it shows."""
