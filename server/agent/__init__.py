"""What an agent is: its settings, their ranges and overrides, and their form in YAML."""
