"""What a round costs besides the computing: fedai against Flower's FedAvg in its default isolation."""
