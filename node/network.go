package node

import (
	"context"
	"net"

	"fcp"
)

// Network is where a node's packets go. Implementations: UDP, node/simnet, and
// node/tailnet. A network that knows more than addresses says so by the interfaces
// below.
type Network interface {
	// Listen opens a packet socket at an address of this network.
	Listen(ctx context.Context, address string) (net.PacketConn, error)
	// Resolve turns an address as people write it into one for WriteTo.
	Resolve(ctx context.Context, address string) (net.Addr, error)
}

// PacketSizer is a Network that knows how large a UDP payload may be, in bytes, to
// cross it in one piece.
type PacketSizer interface{ PacketSize() uint16 }

// Admitter is a Network that knows who is at an address. A peer that it does not admit
// gets no session; one that it admits still has to prove that it is a member.
type Admitter interface {
	Admit(ctx context.Context, addr net.Addr) error
}

// Finder is a Network that knows where peers may be, so that nobody has to name them.
type Finder interface {
	Find(ctx context.Context) ([]string, error)
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
