"""Making alerts from what has happened, behind the runs and never in their way."""
