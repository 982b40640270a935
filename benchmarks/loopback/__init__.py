"""Proxies on loopback: their processes, their configurations, what they limit, and what goes wrong."""
