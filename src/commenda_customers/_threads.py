"""Threads: for a blocking call, and for an import that needs a thread that lasts."""

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import TypeVar

import anyio
from anyio.lowlevel import current_token

from ._cancellation import result_of

T = TypeVar("T")


async def in_daemon_thread(call: Callable[[], T]) -> T:
    """
    Run a blocking call in a thread. Return its result, or raise its exception. A cancellation does not wait for the call.

    If a program leaves its event loop open, this thread does not keep the program alive. A worker thread of anyio would.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []
    ended, token = anyio.Event(), current_token()

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as exc:  # noqa: BLE001 - raised below
            failure.append(exc)
        with suppress(RuntimeError):  # the event loop has ended
            # Not `from_thread.run_sync`: it waits for the event loop, for ever if that stops now.
            token.backend_class.run_sync_soon(ended.set, (), token.native_token)

    threading.Thread(target=run, daemon=True).start()
    await ended.wait()
    return result_of(outcome, failure)


def import_for_good(name: str) -> None:
    """
    Import a module that crashes when it is used after the thread that imported it has ended: so that thread never ends.

    Raises:
        ImportError: It is not installed.
    """
    if sys.modules.get(name) is not None:
        return

    failure: list[ImportError] = []
    is_done = threading.Event()

    def run() -> None:
        try:
            import_module(name)
        except ImportError as exc:
            failure.append(exc)
        finally:
            is_done.set()
        threading.Event().wait(0 if failure else None)

    threading.Thread(target=run, daemon=True).start()
    is_done.wait()
    if failure:
        raise failure[0]
