package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"fcp/node/impair"
	"fcp/node/simnet"
)

// TestTheLaneSharesABottleneck sends over the lane beside one QUIC stream, whose
// congestion control is TCP's, through 20 Mbit/s: the lane takes at most 60 %, and the
// queue grows by at most 50 ms over what the stream alone makes of it; alone, the
// lane's queue is at most 50 ms.
func TestTheLaneSharesABottleneck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 20e6 / 8
		l := newLanePath(t)
		defer l.close()
		link := &impair.Link{Rate: rate, Queue: rate / 10} // 100 ms
		there := impair.Path{Delay: 10 * time.Millisecond, Link: link}
		back := impair.Path{Delay: 10 * time.Millisecond}
		l.paths[0].Set(there)
		l.paths[1].Set(back)

		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		l.fetch(t)
		alone, _ := link.Delays()
		if q := percentile(alone, 99); q > 50*time.Millisecond {
			t.Errorf("alone the lane makes a queue of %v", q)
		}

		moved := stream(ctx, t, l.net, there, back)
		time.Sleep(5 * time.Second)
		before, _ := link.Delays()
		start, at := moved.Load(), time.Now()
		lane := 0
		for time.Since(at) < 15*time.Second {
			l.fetch(t)
			lane += 1 << 20
		}
		beside, _ := link.Delays()
		tcp := int(moved.Load() - start)
		share := float64(lane) / float64(lane+tcp)
		added := percentile(beside, 95) - percentile(before, 95)
		t.Logf("alone: queue %v (99 %%); the lane takes %.0f %%, %.1f of 20 Mbit/s, the stream %.1f; queue at 95 %%: %v without the lane, %v with it",
			percentile(alone, 99), 100*share, float64(lane)*8/time.Since(at).Seconds()/1e6, float64(tcp)*8/time.Since(at).Seconds()/1e6, percentile(before, 95), percentile(beside, 95))
		if share > 0.6 || added > 50*time.Millisecond {
			t.Errorf("the lane takes %.0f %% and adds %v", 100*share, added)
		}
		l.set(impair.Path{})
	})
}

func percentile(d []impair.Delay, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.SortFunc(d, func(a, b impair.Delay) int { return int(a.Wait - b.Wait) })
	return d[min(len(d)-1, len(d)*p/100)].Wait
}

// stream sends as much as it can over a QUIC stream and counts what arrived.
func stream(ctx context.Context, t *testing.T, n *simnet.Network, there, back impair.Path) *atomic.Int64 {
	t.Helper()
	sim := func(host string, p impair.Path) *quic.Transport {
		c, err := n.Host(host).Listen(ctx, host+":9")
		if err != nil {
			t.Fatal(err)
		}
		w := impair.WrapConn(c, p)
		tr := &quic.Transport{Conn: w}
		context.AfterFunc(ctx, func() { tr.Close(); w.Close() })
		return tr
	}
	from, to := sim("s1", there), sim("s2", back)
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"t"}, InsecureSkipVerify: true}
	ln, err := to.Listen(conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	var moved atomic.Int64
	go func() {
		c, err := ln.Accept(ctx)
		if err != nil {
			return
		}
		s, err := c.AcceptUniStream(ctx)
		b := make([]byte, 64<<10)
		for err == nil {
			var k int
			k, err = s.Read(b)
			moved.Add(int64(k))
		}
	}()
	var addr net.Addr = to.Conn.LocalAddr()
	c, err := from.Dial(ctx, addr, conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.OpenUniStream()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 64<<10)
		for {
			if _, err := s.Write(b); err != nil {
				return
			}
		}
	}()
	return &moved
}
