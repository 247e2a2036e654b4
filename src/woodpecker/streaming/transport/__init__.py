"""How clients, nodes and coordinators reach one another: in process, or by gRPC."""
