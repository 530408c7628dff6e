"""`python -m motet` is the `motet` command."""

import sys

from motet.cli import main

sys.exit(main())
