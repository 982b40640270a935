"""
A web service that hands on the customers of a corporation, as JSON lines and page by page as they come.

    pip install '.[cli]' fastapi
    commenda-customers emulate      # in another terminal; it prints what to export here, for a try without an account
    uvicorn --app-dir examples service:app --port 8080
    curl -N http://127.0.0.1:8080/corporations/corp_123/customers
"""

import json
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse

from commenda_customers import AsyncCustomersAPI, Customer, CustomersError, NotFoundError, RateLimitError, ResumableIterator


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    """Open one client for all requests: it holds the connections, and what it learned of the rate limit."""
    async with AsyncCustomersAPI() as api:
        app.state.api = api
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/corporations/{corporation_id}/customers")
async def customers(corporation_id: str, request: Request) -> StreamingResponse:
    """Stream the customers of a corporation."""
    api: AsyncCustomersAPI = request.app.state.api
    try:
        # It is better to tell a caller "later" at once than to keep it waiting.
        walk = aiter(api.list(corporation_id, max_wait=2.0))
    except ValueError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error

    # While the status is not sent yet, a refusal can still become one; see `refused`.
    first = await anext(walk, None)
    return StreamingResponse(json_lines(first, walk), media_type="application/x-ndjson")


async def json_lines(first: Customer | None, walk: ResumableIterator[Customer]) -> AsyncIterator[str]:
    """Write one customer to a line. Nothing needs to be closed if the caller disconnects meanwhile."""
    if first is not None:
        yield first.model_dump_json() + "\n"
    try:
        async for customer in walk:
            yield customer.model_dump_json() + "\n"
    except CustomersError as error:
        # Too late for a status: the last line says that it was cut short, and where to go on.
        resume = error.checkpoint and error.checkpoint.model_dump(mode="json")
        yield json.dumps({"error": error.message, "resume": resume}) + "\n"


@app.exception_handler(CustomersError)
async def refused(_request: Request, error: CustomersError) -> JSONResponse:
    """Say what went wrong before the first customer."""
    if isinstance(error, RateLimitError):
        later = {"Retry-After": str(math.ceil(error.retry_after or 1))}
        return JSONResponse({"error": "busy"}, HTTPStatus.SERVICE_UNAVAILABLE, later)

    status = HTTPStatus.NOT_FOUND if isinstance(error, NotFoundError) else HTTPStatus.BAD_GATEWAY
    return JSONResponse({"error": error.message}, status)
