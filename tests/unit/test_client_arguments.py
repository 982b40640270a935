"""What the client takes and refuses when it is made."""

import pickle
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from commenda_customers import AsyncCustomersAPI
from raw_server import TOKEN


class TestArguments:
    """What the constructor takes and refuses."""

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"timeout": 0}, ValueError),
            ({"timeout": -1}, ValueError),
            ({"timeout": "30"}, TypeError),
            ({"timeout": 10**400}, ValueError),
            ({"max_response_bytes": 0}, ValueError),
            ({"max_response_bytes": 1e6}, TypeError),
            ({"retry": 3}, TypeError),
            ({"hooks": print}, TypeError),
            ({"hooks": [print, 5]}, TypeError),
            ({"hooks": [anyio.sleep]}, TypeError),
            ({"http_client": object()}, TypeError),
        ],
    )
    def test_bad_options_are_refused_by_name(self, options: dict[str, Any], error: type[Exception]) -> None:
        """An option that breaks its rule is refused with its name."""
        with pytest.raises(error, match=next(iter(options))):
            AsyncCustomersAPI(TOKEN, **options)

    @pytest.mark.parametrize("library", [httpx, httpx2])
    def test_a_client_with_api_parameters_is_refused(self, library: Any) -> None:
        """A client whose own parameters would change the request is refused with their name; others are allowed."""
        with pytest.raises(ValueError, match="http_client: its params contain 'search_term'"):
            AsyncCustomersAPI(TOKEN, http_client=library.AsyncClient(params={"search_term": "labs"}))
        AsyncCustomersAPI(TOKEN, http_client=library.AsyncClient(params={"tenant": "7"}))

    @pytest.mark.parametrize("library", [httpx, httpx2])
    def test_a_synchronous_client_is_refused(self, library: Any) -> None:
        """A client that cannot be awaited is refused at construction, with the class that is wanted."""
        with library.Client() as client, pytest.raises(TypeError, match=r"expected an httpx\.AsyncClient .* got Client"):
            AsyncCustomersAPI(TOKEN, http_client=client)

    def test_hooks_may_come_from_any_iterable(self) -> None:
        """Hooks from a generator are all kept."""
        api = AsyncCustomersAPI(TOKEN, hooks=(hook for hook in (print, repr)))  # type: ignore[arg-type]  # not a Sequence
        assert api._fetcher.hooks == (print, repr)

    def test_wrong_parameters_never_reach_the_server(self) -> None:
        """`list` refuses a bad argument when it is called, before any await."""
        api = AsyncCustomersAPI(TOKEN)
        with pytest.raises(ValueError, match="limit"):
            api.list("corp_1", limit=101)
        with pytest.raises(ValueError, match="cursor"):
            api.list("corp_1", cursor="")


class TestProcesses:
    """Processes."""

    def test_it_cannot_be_pickled(self) -> None:
        """A client and its token stay in their process."""
        with pytest.raises(TypeError, match="a token cannot be pickled or copied"):
            pickle.dumps(AsyncCustomersAPI(TOKEN))
