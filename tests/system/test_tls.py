"""TLS: certificates, handshakes, and what breaks after them."""

import gc
import re
import ssl

import httpx
import pytest
import trustme

from behaviours import GOOD
from commenda_customers import (
    APIConnectionError,
    APITimeoutError,
    AsyncCustomersAPI,
    RetryPolicy,
)
from raw_server import TOKEN, Connection, RawServer, listing, ok

pytestmark = pytest.mark.anyio


class TestTLS:
    """Certificates: a connection that is not to be trusted is no reason to try again."""

    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    def _listen(self, raw_server: RawServer, authority: trustme.CA, host: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        authority.issue_cert(host).configure_cert(context)
        raw_server.use_tls(context)
        raw_server.behave(raw_server.answers(GOOD))

    async def _fetch(
        self, raw_server: RawServer, trusted: trustme.CA, *, only_tls_1_3: bool = False, timeout: float = 60
    ) -> list[str]:
        context = ssl.create_default_context()
        trusted.configure_trust(context)
        if only_tls_1_3:
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        url = raw_server.url.replace("http://127.0.0.1", "https://localhost")
        policy = RetryPolicy(max_attempts=3, initial_wait=0.01)
        async with (
            httpx.AsyncClient(verify=context) as client,
            AsyncCustomersAPI(TOKEN, base_url=url, http_client=client, retry=policy, timeout=timeout) as api,
        ):
            return [customer.id async for customer in api.list("corp_1")]

    async def test_a_trusted_certificate_works(self, raw_server: RawServer, authority: trustme.CA) -> None:
        """A list is read over TLS as over plain HTTP."""
        self._listen(raw_server, authority, "localhost")
        assert await self._fetch(raw_server, authority) == ["a", "b"]

    @pytest.mark.parametrize("wrong", ["authority", "host", "protocol"])
    async def test_an_untrusted_connection_is_final(self, raw_server: RawServer, authority: trustme.CA, wrong: str) -> None:
        """An unknown authority, a certificate for another host, no protocol in common: one attempt, and an error."""
        host = "elsewhere.example" if wrong == "host" else "localhost"
        self._listen(raw_server, authority, host)
        with pytest.raises(APIConnectionError, match=r"TLS certificate or protocol was not accepted: .*SSL") as caught:
            await self._fetch(
                raw_server, trustme.CA() if wrong == "authority" else authority, only_tls_1_3=wrong == "protocol"
            )
        assert not caught.value.transient
        assert caught.value.attempts == 1

    async def test_its_own_client_verifies_certificates(self, raw_server: RawServer, authority: trustme.CA) -> None:
        """Without a client of the user, a certificate of an authority that nobody trusts is refused. Nothing is sent."""
        self._listen(raw_server, authority, "localhost")
        url = raw_server.url.replace("http://127.0.0.1", "https://localhost")
        async with AsyncCustomersAPI(TOKEN, base_url=url) as api:
            with pytest.raises(APIConnectionError, match="TLS certificate") as caught:
                await api.list("corp_1")
        assert not caught.value.transient
        assert raw_server.requests == []

    async def test_no_tls_where_tls_was_expected_is_final(self, raw_server: RawServer, authority: trustme.CA) -> None:
        """A server that speaks plain HTTP on an https address gets one attempt."""
        raw_server.behave(lambda connection: connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        with pytest.raises(APIConnectionError, match="TLS") as caught:
            await self._fetch(raw_server, authority)
        assert caught.value.attempts == 1

    async def test_broken_tls_is_retried(self, raw_server: RawServer, authority: trustme.CA) -> None:
        """Bytes that are not TLS, on a TLS connection, are retried like any broken connection."""

        def breaks(connection: Connection) -> None:
            connection.read_request()
            connection.send_past_tls(b"this is no TLS record at all")

        self._listen(raw_server, authority, "localhost")
        raw_server.behave(breaks, raw_server.answers(GOOD))
        assert await self._fetch(raw_server, authority) == ["a", "b"]

    async def test_a_refused_client_certificate_is_final(self, raw_server: RawServer, authority: trustme.CA) -> None:
        """A refusal that arrives after the handshake, as with TLS 1.3, is not retried, and the error names TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        authority.issue_cert("localhost").configure_cert(context)
        authority.configure_trust(context)
        raw_server.use_tls(context)
        raw_server.behave(raw_server.answers(GOOD))
        with pytest.raises(APIConnectionError) as caught:
            await self._fetch(raw_server, authority, only_tls_1_3=True)
        # The server may have closed the connection before its reason could be read: then it is worth another attempt.
        assert caught.value.transient != ("certificate or protocol was not accepted" in str(caught.value))

    async def test_a_handshake_that_hangs_leaves_nothing(self, raw_server: RawServer, authority: trustme.CA) -> None:
        """A handshake that hangs uses the attempts and leaves no socket open."""
        raw_server.behave(lambda connection: connection.wait_for_end())
        with pytest.raises(APITimeoutError) as caught:
            await self._fetch(raw_server, authority, timeout=0.1)
        assert caught.value.attempts == 3
        del caught
        gc.collect()  # an open socket would be a warning, and so an error

    async def test_a_response_too_many_is_dropped(self, raw_server: RawServer, authority: trustme.CA) -> None:
        """A second response on a connection, in a TLS record of its own, is not taken for that to the next request."""
        self._listen(raw_server, authority, "localhost")

        def answers_twice(connection: Connection) -> None:
            while head := connection.read_request():
                answer = ok(listing(*re.findall("corp_[0-9]", head.decode()), corporation_id="corp_1"))
                connection.send_at_once(answer, answer)

        raw_server.behave(answers_twice)
        url = raw_server.url.replace("http://127.0.0.1", "https://localhost")
        context = ssl.create_default_context()
        authority.configure_trust(context)
        async with (
            httpx.AsyncClient(verify=context) as client,
            AsyncCustomersAPI(TOKEN, base_url=url, http_client=client) as api,
        ):
            for name in ("corp_7", "corp_8", "corp_9"):
                assert [customer.id for customer in await api.list("corp_1", name=name)] == ["corp_1", name]
        assert raw_server.connections == 3

    async def test_behind_a_proxy_what_cannot_be_sent_is_final_too(
        self, raw_server: RawServer, authority: trustme.CA
    ) -> None:
        """That the proxy took its own request says nothing about the headers of the request to the server."""
        server, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
        authority.issue_cert("api.example").configure_cert(server)
        authority.configure_trust(trusting)

        def connects(connection: Connection) -> None:
            connection.read_request()
            connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
            connection.start_tls(server)
            connection.read_request()

        raw_server.behave(connects)
        async with (
            httpx.AsyncClient(proxy=raw_server.url, verify=trusting, headers={"X-Mine": "two\nlines"}) as client,
            AsyncCustomersAPI(TOKEN, base_url="https://api.example", http_client=client) as api,
        ):
            with pytest.raises(APIConnectionError, match="could not be sent") as caught:
                await api.list("corp_1")
        assert caught.value.attempts == 1
