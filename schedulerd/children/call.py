"""`PYTHON call.py`: the same as `PYTHON actions/programs/call.py`, by any Python."""

import os
import runpy
import sys

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [each for each in sys.path if os.path.abspath(each) != here]
    runpy.run_path(os.path.join(os.path.dirname(here), "actions", "programs", "call.py"), run_name="__main__")
