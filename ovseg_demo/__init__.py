"""Open-vocabulary semantic segmentation: name every pixel of a photo with your own words."""

import os

__version__ = "0.1.0"

# OpenMP's threads spin while they wait for each other. Where anything else wants the same few cores (a browser beside
# the demo, a neighbour on a shared host) that made a photo on two cores take 23 to 57 s instead of 3; sleeping costs
# a fifth on an idle machine. It must be set before torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
