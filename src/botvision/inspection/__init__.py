"""Looking inside trained networks: where they attend, and whether their attention is alive."""
