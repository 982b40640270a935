"""What was measured on: Python, packages, system, processor."""

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "commenda-customers", "httpx", "httpcore", "h11", "pydantic", "pydantic-core", "anyio", "tenacity", "trio", "uvloop",
    "httpx2", "pyreqwest", "httpx-aiohttp", "aiohttp", "httptools", "openai", "stripe",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return them by name. What is not installed is left out."""
    found = {
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "processor": f"{os.cpu_count()} x {_processor()}",
    }
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def sentence(found: dict[str, str]) -> str:
    """Return them as a line of text."""
    return ", ".join(
        f"{name} {what}" if name not in {"Python", "system", "processor"} else what for name, what in found.items()
    )
