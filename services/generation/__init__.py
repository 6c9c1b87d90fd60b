"""The generation service: a durable saga around every prediction of the provider."""
