package node

import (
	"context"
	"net"

	"fcp"
)

// Network is where a node's packets go. Implementations: UDP, node/simnet.
type Network interface {
	// Listen opens a packet socket at an address of this network.
	Listen(ctx context.Context, address string) (net.PacketConn, error)
	// Resolve turns an address as people write it into one for WriteTo.
	Resolve(ctx context.Context, address string) (net.Addr, error)
}

// UDP is the operating system's network. The zero value is ready.
type UDP struct{}

// Listen opens a UDP socket, such as "127.0.0.1:0".
func (UDP) Listen(ctx context.Context, address string) (net.PacketConn, error) {
	var c net.ListenConfig
	p, err := c.ListenPacket(ctx, "udp", address)
	return p, fcp.Wrap(fcp.CodeInvalidArgument, err, "listen on %s", address)
}

// Resolve looks a host and port up.
func (UDP) Resolve(_ context.Context, address string) (net.Addr, error) {
	a, err := net.ResolveUDPAddr("udp", address)
	return a, fcp.Wrap(fcp.CodeInvalidArgument, err, "the address %s", address)
}
