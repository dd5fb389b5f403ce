"""What sites that lie do to each strategy."""
