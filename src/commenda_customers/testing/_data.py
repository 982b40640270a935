"""
Customers made from a seed: the same ones on every machine. They are made on demand and never stored.

A customer is a function of the seed, its corporation and its number, so a corporation can have millions.
"""

import random
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

Record = dict[str, Any]
"""The API's fields of a customer, and `exemptions`, from which filters and metadata are computed."""

T = TypeVar("T")

_FIRST_WORDS = (
    "Acme", "Alder", "Apex", "Aster", "Beacon", "Birch", "Bluewater", "Brighton", "Cascade", "Cedar", "Copper", "Crescent",
    "Delta", "Dunmore", "Eastgate", "Elm Street", "Evergreen", "Fairview", "Falcon", "Fjord", "Granite", "Harbor",
    "Hawthorn", "Hilltop", "Ironwood", "Juniper", "Kestrel", "Lakeside", "Larkspur", "Maple", "Meridian", "Müller",
    "Northwind", "Oakridge", "Orchard", "Pacific", "Pinnacle", "Prairie", "Quarry", "Redwood", "Río Verde", "Saffron",
    "Silverline", "Société Générale d'", "Summit", "Sycamore", "Tamarind", "Tidewater", "Umber", "Valley", "Westbrook",
    "Whitfield", "Yarrow", "Zephyr", "東京",
)  # fmt: skip
_TRADES = (
    "Analytics", "Bakery", "Bicycles", "Books", "Botanicals", "Brewing", "Ceramics", "Coffee", "Consulting", "Controls",
    "Cosmetics", "Dental", "Design", "Electric", "Fabrics", "Foods", "Furniture", "Garden", "Hardware", "Imports",
    "Instruments", "Labs", "Lighting", "Logistics", "Machining", "Marine", "Media", "Optics", "Outfitters", "Paper",
    "Pharma", "Plastics", "Robotics", "Software", "Solar", "Sports", "Textiles", "Tools", "Toys", "Wines",
)  # fmt: skip
_FORMS = ("Corporation", "Inc.", "LLC", "Ltd.", "GmbH", "Pvt. Ltd.", "& Sons", "Co.", "Group")
_STREETS = (
    "Main St",
    "Market St",
    "Oak Ave",
    "2nd Ave",
    "Mill Rd",
    "Station Rd",
    "Hauptstraße",
    "Rue de la Paix",
    "MG Road",
)
_PLACES = (
    ("San Francisco", "CA", "941{:02}", "US"), ("Los Angeles", "CA", "900{:02}", "US"), ("New York", "NY", "100{:02}", "US"),
    ("Austin", "TX", "787{:02}", "US"), ("Seattle", "WA", "981{:02}", "US"), ("Chicago", "IL", "606{:02}", "US"),
    ("Miami", "FL", "331{:02}", "US"), ("Denver", "CO", "802{:02}", "US"), ("Toronto", "ON", "M5V {:02}X", "CA"),
    ("London", None, "EC{:02} 1AA", "GB"), ("Berlin", "BE", "101{:02}", "DE"), ("Paris", "IDF", "750{:02}", "FR"),
    ("Bengaluru", "KA", "5600{:02}", "IN"),
)  # fmt: skip
_PLATFORMS = ("SHOPIFY", "STRIPE", "QUICKBOOKS", "XERO", "NETSUITE")
_CERTIFICATE_TYPES = ("SINGLE_STATE", "MULTI_STATE", "BLANKET")
_STATES = ("CA", "NY", "TX", "WA", "IL", "FL", "CO")
_FIRST_CREATION = 1_706_000_000


def make_customer(seed: int, corporation_id: str, number: int) -> Record:
    """Return customer *number* of a corporation."""
    corporation_key = zlib.crc32(corporation_id.encode())
    # Only random() is promised to give the same numbers in every version of Python.
    draw = random.Random((seed << 64) | (corporation_key << 32) | number).random

    name = f"{_one_of(_FIRST_WORDS, draw)} {_one_of(_TRADES, draw)} {_one_of(_FORMS, draw)}"
    record: Record = {
        "id": f"cust_{corporation_key:08x}{number:07d}",
        "name": name,
        "corporation_id": corporation_id,
        "created_at": _FIRST_CREATION + 60 * number + int(60 * draw()),
    }
    if draw() < 0.9:
        record["email"] = f"contact{number}@{_domain_of(name)}.example"
    if draw() < 0.6:
        platform = _one_of(_PLATFORMS, draw)
        record["source_platform"] = platform
        record["source_platform_id"] = f"{platform.lower()}-{number}"
    if draw() < 0.3:
        record["external_id"] = f"ext-{number}"
    if draw() < 0.2:
        record["business_identification_number"] = f"{int(1e9 * draw()):09d}"

    city, state, postal_code, country = _one_of(_PLACES, draw)
    record["shipping_address"] = {
        "line1": f"{1 + int(999 * draw())} {_one_of(_STREETS, draw)}",
        "line2": f"Suite {1 + int(99 * draw())}" if draw() < 0.3 else None,
        "city": city,
        "state": state,
        "postal_code": postal_code.format(int(100 * draw())),
        "country": country,
    }
    record["exemptions"] = [_exemption(draw) for _ in range(int(4 * draw()) if draw() < 0.4 else 0)]
    return record


def _exemption(draw: Callable[[], float]) -> Record:
    return {
        "certificate_type": _one_of(_CERTIFICATE_TYPES, draw),
        "jurisdiction": f"US_{_one_of(_STATES, draw)}",
        "is_active": draw() < 0.8,
        "is_expired": draw() < 0.3,
    }


def _one_of(choices: Sequence[T], draw: Callable[[], float]) -> T:
    return choices[int(len(choices) * draw())]


def _domain_of(name: str) -> str:
    return "".join(char for char in name.lower() if char.isascii() and char.isalnum()) or "customer"


EXTENSIONS = ("shipping_address", "exemption_metadata")


def to_wire(record: Record, extend: Iterable[str], address_keys: Mapping[str, str]) -> Record:
    """Return the customer as the API writes it. *address_keys* renames the keys of the address."""
    wire = {key: value for key, value in record.items() if key not in ("shipping_address", "exemptions")}
    if "shipping_address" in extend:
        wire["shipping_address"] = {
            address_keys.get(key, key): value for key, value in record["shipping_address"].items() if value is not None
        }
    if "exemption_metadata" in extend:
        wire["exemption_metadata"] = _metadata(record["exemptions"])

    return wire


def _metadata(exemptions: Sequence[Record]) -> Record:
    states = sorted({exemption["jurisdiction"] for exemption in exemptions})
    active = sum(exemption["is_active"] for exemption in exemptions)
    expired = sum(exemption["is_expired"] for exemption in exemptions)
    return {
        "total_certificates": len(exemptions),
        "certificate_types": sorted({exemption["certificate_type"] for exemption in exemptions}),
        "total_exempted_states": len(states),
        "exempted_states": states,
        "active_exemptions_count": active,
        "inactive_exemptions_count": len(exemptions) - active,
        "expired_exemptions_count": expired,
        "non_expired_exemptions_count": len(exemptions) - expired,
    }
