"""Stacked tensors of tasks, and whether runs train faster in stacks or one by one."""
