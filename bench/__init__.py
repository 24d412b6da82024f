"""Benchmarks: whole processes, side by side in one run. Never run as tests."""
