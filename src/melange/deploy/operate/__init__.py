"""The controller: keeps a live service on its plan, and says why."""
