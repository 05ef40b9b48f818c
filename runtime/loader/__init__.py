"""From bytes on disk to tensors where the engine wants them. In the engine core's process. Step 9, phase `load`."""
