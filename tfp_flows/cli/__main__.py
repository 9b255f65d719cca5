"""Entry point of `python -m tfp_flows.cli`."""

from tfp_flows.cli.main import main

raise SystemExit(main())
