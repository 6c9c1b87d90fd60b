"""Migrations of the webhook service's database."""
