package impair

import (
	"context"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"fcp"
)

// noiseEvery is the pause between two packets of a Noise.
const noiseEvery = 10 * time.Millisecond

// Noise sends to a UDP address of this machine what anybody can send who reaches it:
// random bytes, and packets that look like the first of a QUIC connection.
type Noise struct {
	to   *net.UDPAddr
	conn net.PacketConn
	rng  *rand.Rand
	sent atomic.Uint64
}

// NewNoise opens a socket on loopback for noise to an address, which must be a loopback
// address: CodeInvalidArgument. The caller runs it, which closes it.
func NewNoise(address string, rng *rand.Rand) (*Noise, error) {
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInvalidArgument, err, "the address %.100q", address)
	}
	if !to.IP.IsLoopback() {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "%s is not an address of this machine", address)
	}
	conn, err := net.ListenPacket("udp", net.JoinHostPort(to.IP.String(), "0"))
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "open a socket")
	}
	return &Noise{to: to, conn: conn, rng: rng}, nil
}

// Sent returns how many packets went out. It may be called at any time.
func (n *Noise) Sent() uint64 { return n.sent.Load() }

// Run sends until ctx ends, then closes the socket. It is called once.
func (n *Noise) Run(ctx context.Context) {
	defer n.conn.Close() // nothing is left to be sent
	t := time.NewTicker(noiseEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if _, err := n.conn.WriteTo(n.packet(), n.to); err == nil { // a full queue, or nobody there: the next one
			n.sent.Add(1)
		}
	}
}

func (n *Noise) packet() []byte {
	b := make([]byte, n.rng.IntN(1400))
	for i := range b {
		b[i] = byte(n.rng.Uint32())
	}
	if len(b) > 1200 {
		copy(b, []byte{0xc3, 0, 0, 0, 1, 8}) // a QUIC Initial of version 1
	}
	return b
}
