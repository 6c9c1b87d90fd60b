"""What every process needs and no product knows."""
