"""Where bytes live: planes and the contract they share. Knows nothing of transfers, servers or the wire."""
