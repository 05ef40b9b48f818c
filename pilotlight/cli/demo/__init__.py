"""`pilotlight demo`: the whole way once, on an installation of its own."""
