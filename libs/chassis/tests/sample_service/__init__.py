"""A service's package as the chassis sees one: revisions in migrations/versions."""
