"""huntress-bridge: what moves a Huntress incident report to a ticket."""
