"""`pilotlight run`, `chat` and `logs`: an endpoint asked and listened to."""
