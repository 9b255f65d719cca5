"""How good a flow is: diagnostics and plots."""
