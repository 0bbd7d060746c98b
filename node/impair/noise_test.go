package impair

import (
	"context"
	"math/rand/v2"
	"net"
	"testing"

	"fcp"
)

// TestNoiseArrivesAndStaysHere: packets come, and other machines are refused.
func TestNoiseArrivesAndStaysHere(t *testing.T) {
	at, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	n, err := NewNoise(at.LocalAddr().String(), rand.New(rand.NewPCG(1, 2)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { n.Run(ctx); close(over) }()
	for range 3 {
		if _, _, err := at.ReadFrom(make([]byte, 1500)); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	<-over
	if n.Sent() < 3 {
		t.Error(n.Sent(), "packets")
	}
	for _, address := range []string{"192.0.2.1:9", "nowhere", ""} {
		if _, err := NewNoise(address, nil); fcp.CodeOf(err) != fcp.CodeInvalidArgument {
			t.Errorf("%q: %v", address, err)
		}
	}
}
