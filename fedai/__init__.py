"""What a hospital and a coordinator agree on: studies, the wire, training, statistics, the command line."""

__version__ = "0.1.0"
