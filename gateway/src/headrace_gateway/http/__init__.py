"""What HTTP asks for beyond the messages: bodies, conditions, limits, compression and problem documents."""
