"""The controller: keeps a live service on its plan, and gives the reason for every change."""
