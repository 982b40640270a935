"""What an import brings in, and when."""

import json
import subprocess
import sys
from typing import Any

import pytest

import commenda_customers
from emulated import ServeEmulator

PROGRAM = """
import json, sys, threading
import httpx, pydantic, tenacity, anyio
at_start = set(sys.modules)
import commenda_customers
by_package = set(sys.modules) - at_start
from commenda_customers import AsyncCustomersAPI
by_client = set(sys.modules) - at_start
called = set()

def note(frame, event, argument):
    called.add(frame.f_code.co_filename)

async def main():
    async with AsyncCustomersAPI() as api:
        return len(await api.list("corp_1"))

sys.setprofile(note)
threading.setprofile(note)
customers = anyio.run(main, backend=sys.argv[1])
sys.setprofile(None)
not_called = [name for name in by_client if getattr(sys.modules[name], "__file__", None) not in called]
print(json.dumps({
    "customers": customers,
    "by package": sorted(by_package),
    "by client": sorted(by_client),
    "not called": not_called,
    "by page": sorted(set(sys.modules) - at_start),
}))
"""

WITHOUT_A_CALL = {
    "the package, and folders of it whose modules have the functions": {"", "_http", "_wire", "limits", "_version"},
    "exceptions: none was raised": {"errors"},
    "dataclasses, which have no function of their own": {"events", "progress"},
    "the limiter that a program may choose: `limits` has its name": {"limits.fixed_rate"},
    "the method `stream`: imports of 4 ms must not block the event loop": {"_customer_stream", "_fan_out"},
    "pages that are large, or cannot be read at once: the same": {"_wire.pieces", "_wire.rows"},
}
"""Modules of the package that are imported at the first page although none of their functions is called, by the reason."""

LIBRARIES = {"httpx", "pydantic", "pydantic_core", "annotated_types", "tenacity", "anyio", "sniffio"}
"""The four libraries, and the libraries that these import for a first page."""

NOT_NEEDED = {
    *("click", "rich", "uvicorn", "sqlite3", "pyarrow", "zstandard", "pytest"),
    *("commenda_customers.cli", "commenda_customers.export", "commenda_customers.testing"),
}
"""Needed by the command line, by exports, by tests."""


def first_page(serve: ServeEmulator, backend: str) -> dict[str, Any]:
    """Return what a new process says of its modules after its first page."""
    serve({"corp_1": 5})
    command = [sys.executable, "-W", "error", "-c", PROGRAM, backend]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["customers"] == 5
    return said


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_import_brings_in_what_a_first_page_uses(serve: ServeEmulator, backend: str) -> None:
    """The package by itself imports nothing. Of the modules behind `AsyncCustomersAPI`, a first page uses every one."""
    said = first_page(serve, backend)
    assert set(said["by package"]) == {"commenda_customers", "commenda_customers._version"}

    own = {name for name in said["by client"] if name.partition(".")[0] == "commenda_customers"}
    expected = {f"commenda_customers.{name}".rstrip(".") for names in WITHOUT_A_CALL.values() for name in names}
    assert own & set(said["not called"]) == expected

    others = {name.partition(".")[0] for name in set(said["by client"]) - own} - sys.stdlib_module_names
    assert {name for name in others if not name.startswith("_")} <= LIBRARIES
    assert not NOT_NEEDED & set(said["by page"])


def test_every_name_of_the_package_is_there() -> None:
    """A name comes when it is first used, and `dir` lists it before. A name that does not exist is an `AttributeError`."""
    assert {*commenda_customers.__all__} <= {*dir(commenda_customers)}
    for name in commenda_customers.__all__:
        assert getattr(commenda_customers, name) is getattr(commenda_customers, name)
    assert not hasattr(commenda_customers, "Customers")
    assert commenda_customers.__getattr__("errors") is commenda_customers.errors


def test_every_module_of_the_package_is_there() -> None:
    """`import commenda_customers` is enough to reach a name by its module."""
    program = (
        "import commenda_customers\n"
        "for name in 'auth checkpoint client errors events limits models progress query retry'.split():\n"
        "    assert getattr(commenda_customers, name).__name__ == f'commenda_customers.{name}'\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
