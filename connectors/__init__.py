"""How each ticket system is spoken to; one file each."""
