"""What runs inside a stage process: one stage, from its sources to its receipts."""
