"""The one gated low-rank layer, where it goes, and how it leaves as a PEFT adapter."""
