"""Seconds of a round beside the computing: fedai, Flower, NVFLARE's simulator and NVFLARE's POC mode."""
