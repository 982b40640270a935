"""Servers that limit, a network, and the programs that read from them: all in virtual time."""
