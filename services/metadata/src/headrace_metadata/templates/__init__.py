"""The templates that are shipped with the service, by industry; data and no code."""
