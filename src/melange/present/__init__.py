"""Output for users: tables for the terminal, charts and pages for the browser. Figures are rounded only here."""
