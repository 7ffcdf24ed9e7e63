"""Step-by-step simulation, in compiled code, of one replica or several replicas behind a balancer."""
