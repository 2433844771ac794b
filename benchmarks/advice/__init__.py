"""How well initial LRs are chosen: small trainings of many kinds, and what every LR makes of them."""
