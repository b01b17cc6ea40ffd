"""What metadata does, between the servicers above and the domain and store below: one function a
transaction."""
