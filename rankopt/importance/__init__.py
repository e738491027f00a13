"""Importance of components: pure functions of tensors."""
