"""Following runs: who watches which, here and in other replicas, and what they are told."""
