"""`python -m commenda_customers` is the command `commenda-customers`."""

import sys

from .cli import main

sys.exit(main())
