import sys
from pathlib import Path

# The benchmarks are scripts, not a package: they import one another by file name.
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
