"""`pilotlight keys …`: API keys."""
