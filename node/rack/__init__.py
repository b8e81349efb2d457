"""The simulated rack: servers without hardware, over sockets only."""
