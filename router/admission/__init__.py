"""Whether a call may come in, and what it asks for: addresses, keys, the fields of its body. Steps 2 to 4."""
