"""One exception of each class that Python and the libraries below the SDK may raise while they send and receive."""

import asyncio
import inspect
import socket
import ssl
from types import ModuleType
from typing import Any

import anyio
import h2.exceptions
import h11
import hpack
import httpcore
import httpcore2
import httpx
import httpx2
import hyperframe.exceptions
import trio

_LIBRARIES = (httpx, httpx2, httpcore, httpcore2, h11, h2.exceptions, hpack, hyperframe.exceptions, anyio, trio, ssl)
_OF_PYTHON: tuple[type[Exception], ...] = (
    OSError,
    BlockingIOError,
    BrokenPipeError,
    ConnectionAbortedError,
    ConnectionRefusedError,
    ConnectionResetError,
    InterruptedError,
    PermissionError,
    TimeoutError,
    socket.gaierror,
    EOFError,
    asyncio.IncompleteReadError,
    asyncio.InvalidStateError,
    ValueError,
    UnicodeDecodeError,
    RuntimeError,
    KeyError,
    IndexError,
    ArithmeticError,
    BufferError,
    ReferenceError,
)
MISTAKES: tuple[type[Exception], ...] = (
    TypeError,
    AttributeError,
    NameError,
    ImportError,
    NotImplementedError,
    RecursionError,
    AssertionError,
    UserWarning,
)
_REQUEST = httpx.Request("GET", "https://elsewhere.example/")
_ARGUMENTS: tuple[tuple[Any, ...], ...] = (
    ("it broke",),
    (),
    (1,),
    (b"", 1),
    (1, 2),
    ("utf-8", b"", 0, 1, "it broke"),
    ("it broke", [OSError("it broke")]),
)


def _classes_of(module: ModuleType) -> list[type[Exception]]:
    values = [getattr(module, name) for name in {*dir(module), *getattr(module, "__all__", ())}]
    return [
        value
        for value in values
        if inspect.isclass(value) and issubclass(value, Exception) and not issubclass(value, Warning)
    ]


def make(kind: type[Exception]) -> Exception:
    """Return an exception of a class, whatever arguments it wants."""
    if kind.__name__ == "HTTPStatusError":
        return kind("it broke", request=_REQUEST, response=httpx.Response(404, request=_REQUEST))  # type: ignore[call-arg]
    for arguments in _ARGUMENTS:
        try:
            exc = kind(*arguments)
            str(exc)
        except (TypeError, AttributeError, ValueError):
            continue
        return exc
    raise AssertionError(kind)


def _can_be_made(kind: type[Exception]) -> bool:
    try:
        make(kind)
    except AssertionError:
        return kind is AssertionError
    return True


ALL = sorted(
    {
        kind
        for kind in [
            *_OF_PYTHON,
            *MISTAKES,
            ExceptionGroup,
            *(kind for module in _LIBRARIES for kind in _classes_of(module)),
        ]
        if _can_be_made(kind)
    },
    key=lambda kind: (kind.__module__, kind.__qualname__),
)
"""The classes."""


def name_of(kind: type[Exception]) -> str:
    """Return the name of a class, for the name of a test."""
    return f"{kind.__module__}.{kind.__qualname__}"
