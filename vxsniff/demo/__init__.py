"""A web shop, its clients and a mirror of their packets, on loopback. Also a tool for tests."""
