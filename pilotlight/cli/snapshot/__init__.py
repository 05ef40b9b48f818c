"""`pilotlight snapshot …`: models as they are stored."""
