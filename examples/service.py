"""
A web service that forwards the customers of a corporation page by page, as JSON Lines.

    pip install fastapi uvicorn
    commenda-customers emulate      # to try it without an account: in another terminal; paste its export lines here
    uvicorn service:app --port 8080
    curl -N http://127.0.0.1:8080/corporations/corp_123/customers
"""

import json
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse

from commenda_customers import (
    AsyncCustomersAPI,
    CustomerPage,
    CustomersError,
    NotFoundError,
    RateLimitError,
    ResumableIterator,
    RetryPolicy,
)

SECONDS_FOR_FIRST_PAGE = 10
SECONDS_IN_ALL = 60


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    """Open one client for all requests. It keeps the connections, and the rate limit that it has learned."""
    async with AsyncCustomersAPI(timeout=5, retry=RetryPolicy(deadline=20)) as api:
        app.state.api = api
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/corporations/{corporation_id}/customers")
async def customers(corporation_id: str, request: Request) -> StreamingResponse:
    """Stream the customers of a corporation."""
    api: AsyncCustomersAPI = request.app.state.api
    deadline = anyio.current_time() + SECONDS_IN_ALL
    try:
        # Do not wait for the rate limit for longer than 2 s: tell the caller when to come back.
        pages = api.list(corporation_id, max_wait=2.0).pages()
    except ValueError as error:
        raise HTTPException(400, str(error)) from error

    # The status is not sent yet. So an error here can still set it: see the two handlers below.
    with anyio.fail_after(SECONDS_FOR_FIRST_PAGE):
        first = await anext(pages)
    return StreamingResponse(json_lines(first, pages, deadline), media_type="application/x-ndjson")


async def json_lines(
    page: CustomerPage | None, pages: ResumableIterator[CustomerPage], deadline: float
) -> AsyncIterator[str]:
    """Write one customer on each line. If the caller disconnects, nothing needs to be closed."""
    try:
        while page is not None:
            yield "".join(customer.model_dump_json() + "\n" for customer in page)
            # Put the time limit around each step, never around a `yield`.
            with anyio.fail_after(deadline - anyio.current_time()):
                page = await anext(pages, None)
    except (CustomersError, TimeoutError) as error:
        # The status is already sent. So the last line has the error, and the checkpoint to resume from.
        message = error.message if isinstance(error, CustomersError) else "the list took too long"
        resume = pages.checkpoint().model_dump(mode="json")
        yield json.dumps({"error": message, "resume": resume}) + "\n"


@app.exception_handler(CustomersError)
async def failed(_request: Request, error: CustomersError) -> JSONResponse:
    """Respond with a status if the first page could not be fetched."""
    if isinstance(error, RateLimitError):
        return JSONResponse({"error": "busy"}, 503, {"Retry-After": str(math.ceil(error.retry_after or 1))})

    return JSONResponse({"error": error.message}, 404 if isinstance(error, NotFoundError) else 502)


@app.exception_handler(TimeoutError)
async def timed_out(_request: Request, _error: TimeoutError) -> JSONResponse:
    """Respond with a status if the first page took too long."""
    return JSONResponse({"error": "the first page took too long"}, 504)
