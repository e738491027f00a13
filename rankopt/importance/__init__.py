"""How much a component matters: pure functions of tensors."""
