"""The ledger, a process of its own: it gives routers their policy and settles what calls used. Steps 2 and 12."""
