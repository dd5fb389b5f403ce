"""What simulated sites take, in time and memory."""
