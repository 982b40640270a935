"""Measures what a page costs the client, beside other clients. Run it with `python benchmarks/run.py`."""
