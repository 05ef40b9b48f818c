"""Where calls wait for a slot, and what this router knows of the replicas that have them. Steps 5 and 10."""
