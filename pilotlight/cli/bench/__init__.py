"""`pilotlight bench`: how fast this installation is, beside others."""
