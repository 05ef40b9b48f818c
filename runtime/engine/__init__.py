"""The engines a standby can be. Importing this package imports none of them."""
