"""What the one writer knows: demand, nodes, replicas, the routers' table, and what waits. Step 6.

Nothing here waits or sends a frame.
"""
