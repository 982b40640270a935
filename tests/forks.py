"""Processes that are forked from one that has imported everything: starting Python takes longer than a kill."""

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["anyio._backends._asyncio", "commenda_customers", "httpx", "pyarrow.compute", "pyarrow.parquet", "pytest"]
)
