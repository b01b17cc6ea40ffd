"""Between the messages of the contract and the domain. Nothing is decided here."""
