"""How fast a stream is on this machine, beside other ways to compute the same."""
