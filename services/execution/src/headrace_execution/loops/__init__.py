"""The agents: each does a bounded piece of work at a time, on any number of replicas at once."""
