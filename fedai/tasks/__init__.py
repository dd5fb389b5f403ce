"""What is particular to a task: network, loss, how images become tensors."""
