"""The gated low-rank layer, its injection into models, and its export as a PEFT adapter."""
