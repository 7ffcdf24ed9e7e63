"""One replica, and several behind a balancer, simulated step by step in compiled code."""
