"""The gated low-rank layer, its injection into models, and its export as a PEFT adapter."""

import logging

# bitsandbytes, which PEFT imports, warns of a kernel that it misses, and at each int8 product of float32 inputs
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
