"""Tools for any LoRA adapter: analyze, compress, merge, convert. Code in an adapter is never executed."""
