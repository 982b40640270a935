"""What the client takes and refuses when it is made."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from commenda_customers import (
    AdaptiveLimiter,
    AsyncCustomersAPI,
    Customer,
    CustomerPage,
    FixedRate,
    RateLimitError,
    RetryPolicy,
)
from leaks import provide
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
    """Processes and copies."""

    @pytest.mark.parametrize("leave", [copy.copy, copy.deepcopy, pickle.dumps])
    @pytest.mark.parametrize("token", [TOKEN, provide])
    def test_what_is_bound_to_its_place_stays_there(self, token: Any, leave: Callable[[Any], Any]) -> None:
        """A client, and what belongs to it, can neither be copied nor go to another process; the error says what to do."""
        api = AsyncCustomersAPI(token)
        for thing in (api, api.with_options(timeout=1)):
            with pytest.raises(TypeError, match="^AsyncCustomersAPI cannot be pickled or copied; make a client where"):
                leave(thing)
        for thing in (api.list("corp_1"), api.stream(["corp_1"]), aiter(api.list("corp_1")), api.list("corp_1").pages()):
            with pytest.raises(
                TypeError, match="cannot be pickled or copied; make a client where.* resume from a checkpoint"
            ):
                leave(thing)
        for thing in (AdaptiveLimiter(), FixedRate(1)):
            with pytest.raises(TypeError, match="cannot be pickled or copied; make a limiter where it is used"):
                leave(thing)

    @pytest.mark.parametrize("leave", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
    def test_plain_data_goes_anywhere(self, leave: Callable[[Any], Any]) -> None:
        """Checkpoints, pages, customers and policies are plain data, which can be copied and pickled."""
        page = CustomerPage("corp_1", (Customer(id="a", corporation_id="corp_1"),), 1, "2")
        for thing in (AsyncCustomersAPI(TOKEN).stream(["corp_1"]).checkpoint(), page, page.customers[0], RetryPolicy()):
            assert leave(thing) == thing
        error = leave(RateLimitError("why", retry_after=3.0, corporation_id="corp_1"))
        assert (str(error), error.retry_after) == ("why [corporation 'corp_1', first page]", 3.0)
