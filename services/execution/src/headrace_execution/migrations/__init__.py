"""The schema of the service's database, revision by revision."""
