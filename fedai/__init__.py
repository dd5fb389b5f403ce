"""What a hospital and a coordinator agree on: studies, the wire, training, statistics, the command line."""

import os

__version__ = "0.1.0"

# Where MLflow is installed MONAI imports it, in every process; it would tell its makers of its use.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
