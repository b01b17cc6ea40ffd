"""All SQL of metadata. Functions take the caller's connection, so that the caller decides what is one
transaction."""
