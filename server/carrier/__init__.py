"""Call control: carriers' webhooks and REST."""
