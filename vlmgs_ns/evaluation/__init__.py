"""How well words find things: metrics, the protocols A, B and C, and readers of labels."""
