"""The schema of the generation service, step by step."""
