"""An app's module that ends its interpreter, as one does that finds no settings."""

import sys

sys.exit("there are no settings here")
