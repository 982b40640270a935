"""What surrounds the customers of a page, as pydantic models."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ..models import Customer

Rows = Annotated[tuple[Customer, ...], Field(fail_fast=True)]
"""Fails at the first bad row: a small body can hold a million of them, each with an error to collect."""


class Listing(BaseModel):
    """A page, as the API documents it."""

    model_config = ConfigDict(hide_input_in_errors=True)

    customers: Rows | None = None
    total_customers: int | None = None
    cursor: str | None = None


class Envelope(Listing):
    """Both documented envelopes, validated in one pass: the bare listing, and the one wrapped in `data`."""

    data: Listing | None = None

    @property
    def listing(self) -> Listing:
        """The listing that counts."""
        return self if self.data is None else self.data
