"""The page on which a fleet is decided: a local server, its controls, and the answers it shows."""
