"""Docker Compose: servers on machines with several accelerators, each in a container of its own."""
