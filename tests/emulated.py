"""The emulated API in memory: a client of it, and requests without the client."""

from collections.abc import Callable
from typing import Any

import httpx

from commenda_customers import AsyncCustomersAPI
from commenda_customers.testing import Emulator

ServeEmulator = Callable[..., Emulator]
"""Serves an emulator for the rest of the test; see the fixture `serve`."""

CORPORATIONS = {"corp_1": 250, "corp_2": 3, "corp_empty": 0}


def connected(server: Emulator, **options: Any) -> AsyncCustomersAPI:
    """Return a client of an emulator in memory."""
    client = httpx.AsyncClient(transport=httpx.ASGITransport(server))
    return AsyncCustomersAPI(**{"token": server.token, **options}, base_url=server.base_url, http_client=client)


class Asker:
    """Asks an emulator in memory."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(emulator),
            base_url=emulator.base_url,
            headers={"Authorization": f"Bearer {emulator.token}"},
        )

    async def get(self, **params: str) -> httpx.Response:
        return await self.client.get("/customers", params={"corporation_id": "corp_1", **params})

    async def data(self, **params: str) -> Any:
        response = await self.get(**params)
        assert response.status_code == 200, response.text
        return response.json()["data"]

    async def read_all(self, **params: str) -> list[dict[str, Any]]:
        customers: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            data = await self.data(**params, **cursor)
            customers += data["customers"]
            if not data["cursor"]:
                return customers
            cursor = {"cursor": data["cursor"]}


def ask(**options: Any) -> Asker:
    """Return an asker of a new emulator."""
    return Asker(Emulator(CORPORATIONS, **options))


def everyone(emulator: Emulator, **params: str) -> list[dict[str, Any]]:
    """Return all customers of `corp_1` with all that can be known of them."""
    return list(emulator.customers("corp_1", extend="shipping_address,exemption_metadata", **params))
