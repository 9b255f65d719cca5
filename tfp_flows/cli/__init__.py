"""The command `tfp-flows`: densities for tables and images, from the shell."""
