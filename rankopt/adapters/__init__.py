"""Tools for any LoRA adapter: analyse, compress, merge, convert. Nothing in an adapter is ever executed."""
