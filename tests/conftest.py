"""What all tests share: one thread a worker, and inputs that are the same at every run unless asked otherwise."""

import os

from hypothesis import settings

# Before torch loads: sums over several threads differ in the last digit from run to run; pytest runs two workers.
os.environ["OMP_NUM_THREADS"] = "1"

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=300)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
