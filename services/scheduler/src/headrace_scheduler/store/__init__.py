"""The SQL of the scheduler. Every statement of a user's request names the tenant."""
