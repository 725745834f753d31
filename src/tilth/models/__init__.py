"""Networks, and the model folder that holds one."""
