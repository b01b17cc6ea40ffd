"""Protobuf messages as JSON values and back, by functions that are compiled once for each message type."""
