"""A pretend Huntress, ConnectWise, Autotask and mailbox on loopback, for the demo and the tests."""
