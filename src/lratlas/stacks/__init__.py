"""Tasks as stacked tensors, and whether runs train faster in stacks or one by one."""
