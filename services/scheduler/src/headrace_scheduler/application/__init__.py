"""What happens in one transaction, and what is asked of other services."""
