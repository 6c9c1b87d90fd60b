"""Takes Replicate's signed webhooks: verifies, stores, acknowledges, then passes them on."""
