"""schedulerd: a job scheduler for a Linux host."""

import os

__version__ = "0.1.0"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # the folder that this package is imported from
