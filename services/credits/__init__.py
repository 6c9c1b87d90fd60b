"""The credits service: reserves, commits and refunds the credits of every user."""
