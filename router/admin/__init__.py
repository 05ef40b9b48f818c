"""The admin API, a process of its own: endpoints, keys, prices and usage, over a Unix socket."""
