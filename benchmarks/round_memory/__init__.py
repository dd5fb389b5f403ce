"""How much memory a round takes at the server, by the number of sites that answer."""
