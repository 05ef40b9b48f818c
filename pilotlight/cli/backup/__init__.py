"""`pilotlight backup` and `restore`: an installation in one file."""
