"""`pilotlight up`, `down` and `status`: every process of an installation, started, watched and ended."""
