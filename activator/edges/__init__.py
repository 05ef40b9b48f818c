"""The activator's edges: sockets of routers and agents, commands, leadership. Steps 6, 7 and 10."""
