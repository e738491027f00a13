"""What several allocators share; no file here is an allocator."""
