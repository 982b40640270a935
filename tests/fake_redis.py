"""A server in this process that speaks the protocol of Redis. `nox -s fleet` uses a real one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fakeredis import TcpFakeServer


@contextmanager
def fake_redis() -> Iterator[str]:
    """Serve on a free port of loopback for the length of a block, and yield the URL."""
    with TcpFakeServer(("127.0.0.1", 0), server_type="redis") as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        finally:
            server.shutdown()
            thread.join()
