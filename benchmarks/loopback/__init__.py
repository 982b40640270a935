"""Proxies with limits on loopback: their configurations, and their processes."""
