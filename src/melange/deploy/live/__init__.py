"""The balancer: an OpenAI-compatible proxy that sends live traffic where a plan says."""
