"""The balancer: an OpenAI-compatible proxy that routes live traffic according to a plan."""
