"""Measures what a page costs the SDK, and compares it with other clients. Run it with `python benchmarks/run.py`."""
