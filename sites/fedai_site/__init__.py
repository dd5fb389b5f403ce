"""All that runs inside a hospital. Nothing in here imports fedai_server."""
