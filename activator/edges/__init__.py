"""Where the activator meets others: sockets of routers and agents, commands, leadership. Steps 6, 7 and 10."""
