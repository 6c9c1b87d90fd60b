"""Judges a customer by what really happened."""
