package simnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func pair(t *testing.T, n *Network) (a, b net.PacketConn) {
	t.Helper()
	a, err := n.Host("a").Listen(context.Background(), "x:0")
	if err != nil {
		t.Fatal(err)
	}
	if b, err = n.Host("b").Listen(context.Background(), "x:7"); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// read counts what arrives until nothing came for a while.
func read(t *testing.T, c net.PacketConn) (got []string) {
	t.Helper()
	b := make([]byte, MTU)
	for {
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _, err := c.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(b[:n]))
	}
}

// run sends 1,000 packets, one each millisecond.
func run(t *testing.T, seed uint64, l Link) (got []string, c Counts) {
	synctest.Test(t, func(t *testing.T) {
		n := New(seed, time.Now, l)
		a, b := pair(t, n)
		go func() {
			for i := range 1000 {
				a.WriteTo(fmt.Appendf(nil, "%d", i), b.LocalAddr())
				time.Sleep(time.Millisecond)
			}
		}()
		got, c = read(t, b), n.Counts()
	})
	return got, c
}

func TestTheSameSeedGivesTheSameNetwork(t *testing.T) {
	l := Link{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 1000, Duplicate: 500, Corrupt: 200}
	one, c := run(t, 1, l)
	two, _ := run(t, 1, l)
	other, _ := run(t, 2, l)
	if fmt.Sprint(one) != fmt.Sprint(two) {
		t.Error("one seed gave two networks")
	}
	if fmt.Sprint(one) == fmt.Sprint(other) {
		t.Error("two seeds gave one network")
	}
	if c.Sent != 1000 || c.Lost < 60 || c.Lost > 140 || c.Duplicated < 20 || c.Corrupted < 5 {
		t.Errorf("%+v", c)
	}
	late := 0
	for i := 1; i < len(one); i++ {
		if len(one[i]) < len(one[i-1]) || len(one[i]) == len(one[i-1]) && one[i] < one[i-1] {
			late++
		}
	}
	if late == 0 || c.Reordered == 0 {
		t.Error("no packet overtook another", c.Reordered)
	}
}

func TestACutStopsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1, time.Now, Link{})
		a, b := pair(t, n)
		n.Cut("a", "b")
		a.WriteTo([]byte("lost"), b.LocalAddr())
		n.Heal("b", "a")
		a.WriteTo([]byte("here"), b.LocalAddr())
		if got := read(t, b); fmt.Sprint(got) != "[here]" {
			t.Error(got)
		}
		b.Close()
		if _, _, err := b.ReadFrom(nil); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, err := n.Host("b").Listen(context.Background(), "x:7"); err != nil {
			t.Error("the address is not free again:", err)
		}
	})
}

func TestACutOneWayLetsTheOtherWayThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1, time.Now, Link{})
		a, b := pair(t, n)
		n.CutOneWay("a", "b")
		a.WriteTo([]byte("lost"), b.LocalAddr())
		b.WriteTo([]byte("here"), a.LocalAddr())
		if got := read(t, b); len(got) != 0 {
			t.Error("cut:", got)
		}
		if got := read(t, a); fmt.Sprint(got) != "[here]" {
			t.Error("back:", got)
		}
	})
}

func TestALinkHasARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1, time.Now, Link{Rate: 100_000, Queue: 10_000})
		a, b := pair(t, n)
		for range 50 {
			a.WriteTo(make([]byte, 1000), b.LocalAddr())
		}
		began := time.Now()
		got := read(t, b)
		if len(got) < 10 || len(got) > 12 {
			t.Errorf("%d packets of 1,000 bytes fit a queue of 10,000", len(got))
		}
		if d := time.Since(began) - 5*time.Second; d < 90*time.Millisecond || d > 130*time.Millisecond {
			t.Errorf("they took %v", d)
		}
	})
}
