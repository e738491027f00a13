"""The library's doors: adapt a model in your own training, run studies from Python."""
