"""All that runs at the coordinator. Nothing in here imports fedai_site."""
