"""What tests of execution stand on, for those who test it from outside of this package."""
