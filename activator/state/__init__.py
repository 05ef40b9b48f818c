"""What the one writer knows: demand, nodes, the table of routers, and what waits. Nothing here waits or sends. Step
6.
"""
