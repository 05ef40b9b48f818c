"""`pilotlight doctor`: what an installation needs of its machine, looked at."""
