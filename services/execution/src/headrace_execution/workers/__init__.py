"""The workers that are connected to this replica: their streams, their slots, what is handed to them."""
