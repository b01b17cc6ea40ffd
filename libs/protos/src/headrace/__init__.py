"""The contracts of Headrace as Python: generated from protos/ and committed. The only owner of this import root."""

from importlib.resources import files


def descriptor_set() -> bytes:
    """Returns the serialized FileDescriptorSet of all contracts, with source info (the protos' comments)."""
    return (files(__name__) / "descriptors.binpb").read_bytes()
