"""The recipes of the documentation keep what their text says; that each program runs is tested elsewhere."""

import ast
import asyncio
import inspect
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trustme
import uvicorn

from commenda_customers.testing import Emulator, faults

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
Serve = Callable[..., Emulator]


def recipe(heading: str, fence: str = "python") -> str:
    """Return the program below a heading; several cells as one."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return "\n".join(re.findall(rf"```{fence}\n(.*?)```", section, re.DOTALL))


def run(program: str | Path, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    source = [str(program)] if isinstance(program, Path) else ["-c", program]
    command = [sys.executable, "-W", "error", *source, *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("heading", "name"), [("A web service with FastAPI", "service.py"), ("A nightly job into SQLite", "nightly.py")]
)
def test_the_page_shows_the_examples(heading: str, name: str) -> None:
    """A program that is in the examples is on the page as the same text."""
    shown = re.sub(r"\A# needs: .*\n", "", recipe(heading))
    assert shown == (ROOT / "examples" / name).read_text(encoding="utf-8")


class TestService:
    """The deadlines of the web service; the rest is in `test_example_service.py`."""

    def _get(self, monkeypatch: pytest.MonkeyPatch, **seconds: float) -> httpx.Response:
        pytest.importorskip("fastapi")
        service: dict[str, Any] = {"__name__": "service"}
        exec(compile(recipe("A web service with FastAPI"), "service.py", "exec"), service)
        service.update(seconds)

        async def get() -> httpx.Response:
            app = service["app"]
            transport = httpx.ASGITransport(app)
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=transport, base_url="http://service") as client,
            ):
                return await client.get("/corporations/corp_1/customers")

        return anyio.run(get)

    def test_the_first_page_has_a_deadline(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """A first page that takes too long is a 504."""
        serve({"corp_1": 10}, faults=[faults.Hang(at=[1])])
        assert self._get(monkeypatch, SECONDS_FOR_FIRST_PAGE=0.2).status_code == 504

    def test_the_list_has_a_deadline(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """A list that takes too long ends with a line that says so, and how to resume."""
        serve({"corp_1": 500}, faults=[faults.Hang(at=[3])])
        answer = self._get(monkeypatch, SECONDS_IN_ALL=2)
        *customers, last = [json.loads(line) for line in answer.text.splitlines()]
        assert (answer.status_code, len(customers), last["error"]) == (200, 200, "the list took too long")
        assert last["resume"]["positions"][0]["customers"] == 200


class TestSynchronous:
    """One client for all threads of a synchronous program."""

    def test_threads_share_the_client(self, serve: Serve, tmp_path: Path) -> None:
        """Several threads read lists at the same time through one client, and errors come as themselves."""
        server = serve({"corp_1": 250, "corp_2": 101, "corp_3": 0})
        (tmp_path / "recipe.py").write_text(recipe("Synchronous programs"), encoding="utf-8")
        program = """
import threading
from concurrent.futures import ThreadPoolExecutor
from commenda_customers import NotFoundError
from recipe import customers, open_client

with ThreadPoolExecutor(3) as threads:
    print(*threads.map(lambda name: len(list(customers(name))), ["corp_1", "corp_2", "corp_3"]))
try:
    next(customers("nobody"))
except NotFoundError as error:
    print(error.status_code, open_client.cache_info().misses)
"""
        done = run(program, cwd=tmp_path)
        assert (done.stdout, done.stderr, done.returncode) == ("250 101 0\n404 1\n", "", 0)
        assert len(server.requests) == 3 + 2 + 1 + 1

    def test_it_can_be_interrupted(self, serve: Serve, tmp_path: Path) -> None:
        """Ctrl-C ends the program at once, also while it waits for a response."""
        server = serve(faults=[faults.Hang(at=[2])])
        command = [sys.executable, "-c", recipe("Synchronous programs")]
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            while len(server.requests) < 2 and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=20)[1]
        assert errors.splitlines()[-1] == "KeyboardInterrupt"


def test_the_cells_of_the_notebook_run(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """The cells run one after the other on one event loop, as Jupyter runs them."""
    serve()
    code = compile(recipe("Jupyter", "py"), "cells", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert code.co_flags & inspect.CO_COROUTINE
    names: dict[str, Any] = {}

    async def run_cells() -> None:
        await eval(code, names)

    asyncio.run(run_cells())
    assert (len(names["page"]), len(names["customers"])) == (5, 1000)


TROUBLE = [faults.Status(at=[2]), faults.Drop(at=[4]), faults.TooManyRequests(at=[6], retry_after="0")]


def test_metrics_count_what_happened(serve: Serve, tmp_path: Path) -> None:
    """Pages, customers, failed attempts, retries and refusals are counted exactly."""
    pytest.importorskip("prometheus_client")
    serve({"corp_123": 450}, faults=TROUBLE)
    done = run(recipe("Metrics with Prometheus"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    numbers = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines() if line and not line.startswith("#"))
    expected = {
        'commenda_pages_total{outcome="fetched"}': 5,
        "commenda_customers_total": 450,
        "commenda_page_seconds_count": 5,
        'commenda_failed_attempts_total{error="ServerError"}': 1,
        'commenda_failed_attempts_total{error="APIConnectionError"}': 1,
        'commenda_failed_attempts_total{error="RateLimitError"}': 1,
        "commenda_retries_total": 3,
        "commenda_throttled_total": 1,
    }
    assert {name: float(numbers[name]) for name in expected} == expected


def test_traces_show_each_attempt(serve: Serve, tmp_path: Path) -> None:
    """Each attempt is a span below the program's own, which has the retries; the token is nowhere."""
    pytest.importorskip("opentelemetry.instrumentation.httpx")
    server = serve({"corp_123": 450}, faults=TROUBLE)
    done = run(recipe("Traces with OpenTelemetry"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert server.token not in done.stdout
    *attempts, mine = json.loads("[" + done.stdout.strip().replace("\n}\n{", "\n},\n{") + "]")
    assert Counter(span["name"] for span in attempts) == {"GET": 8}
    assert {span["parent_id"] for span in attempts} == {mine["context"]["span_id"]}
    assert [event["name"] for event in mine["events"]] == ["retry"] * 3


class Proxy:
    """A proxy that tunnels every CONNECT to one port, whatever host is asked for."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        self.asked.append(head.split(b"\r\n")[0].decode())
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
            back.start()
            self._copy(client, server)
            back.join()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while part := source.recv(65536):
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.mark.parametrize("how", ["by the environment", "by the program"])
def test_a_proxy_and_a_private_authority(how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The API behind a proxy, with a certificate of a private authority, is reached in both ways of the recipe."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    emulator = Emulator()
    config = uvicorn.Config(emulator, ws="none", lifespan="off", log_config=None)
    config.load()
    config.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.example").configure_cert(config.ssl)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        proxy = Proxy(listener.getsockname()[1])
        proxy_name, authority_name = {
            "by the environment": ("HTTPS_PROXY", "SSL_CERT_FILE"),
            "by the program": ("COMPANY_PROXY", "COMPANY_CA"),
        }[how]
        monkeypatch.setenv(proxy_name, proxy.url)
        monkeypatch.setenv(authority_name, str(tmp_path / "ca.pem"))
        monkeypatch.setenv("COMMENDA_BASE_URL", "https://api.example/api/v1")
        monkeypatch.setenv("COMMENDA_API_TOKEN", emulator.token)
        program = recipe("Proxies and private certificates")
        if how == "by the environment":
            program = recipe("Synchronous programs")
        done = run(program, cwd=tmp_path)
        server.should_exit = True
        thread.join()
    proxy.close()
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.split()[1] == "customers"
    assert set(proxy.asked) == {"CONNECT api.example:443 HTTP/1.1"}
