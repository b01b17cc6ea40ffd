"""Where runs live: the port that the service is written against, and its SQL."""
