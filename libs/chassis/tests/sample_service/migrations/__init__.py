"""The revisions of the sample service."""
