"""Sending what somebody is to be told."""
