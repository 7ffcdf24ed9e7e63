"""What people read: tables for the terminal, charts and pages for the browser. Only here are figures rounded."""
