"""The RPCs: they convert, call, and convert back."""
