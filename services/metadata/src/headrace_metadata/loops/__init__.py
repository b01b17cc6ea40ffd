"""The long-running parts of metadata: agents whose `run_once` is the tested unit."""
