"""One call at one replica: sent once, its answer passed on as it comes, and counted. Steps 11 and 12."""
