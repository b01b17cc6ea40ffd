"""The OpenAPI document, derived from the contracts."""
