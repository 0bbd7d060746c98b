package wire

import (
	"bytes"
	"testing"
)

func FuzzDecodeFrame(f *testing.F) {
	b, _ := nativeFrame().AppendTo(nil, LayoutNative)
	f.Add(b, byte(2))
	b, _ = nativeFrame().AppendTo(nil, LayoutReference)
	f.Add(b, byte(1))
	f.Fuzz(func(t *testing.T, b []byte, layout byte) {
		l := LayoutReference + Layout(layout%2)
		got, err := DecodeFrame(b, l, 1<<16)
		if err != nil {
			return
		}
		if rawFlags(b)&^knownFlags == 0 {
			if again, err := got.AppendTo(nil, l); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("encodes to %x, %v", again, err)
			}
		}
		if s, err := DecodeStrict(b, l, 1<<16); err == nil && len(s.Records) != len(got.Records) {
			t.Fatal("strict decoding gives another frame")
		}
		for i := range got.Records {
			c, _ := NewSymbolCipher(Key{})
			c.Open(nil, &got.Header, &got.Records[i])
		}
	})
}

func FuzzDecodeDatagram(f *testing.F) {
	f.Add(make([]byte, EnvelopeSize+3))
	m, _ := NewMAC(SuiteHMAC, Key{}, SessionID{}, ToResponder)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := DecodeDatagram(b, DefaultDatagram)
		if err != nil {
			return
		}
		m.Fits(&d)
		if again := append(make([]byte, EnvelopeSize), d.Frame...); len(again) != len(b) {
			t.Fatal("a datagram lost bytes")
		}
	})
}

func FuzzDecodeControl(f *testing.F) {
	c, _ := NewControlCipher(SessionID{}, Key{})
	b, _ := c.Seal(nil, ToResponder, 1, 0, []byte("x"))
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, sealed, err := DecodeControl(b, 1<<16)
		if h2, err2 := DecodeControlHead(b, 1<<16); err == nil && (err2 != nil || h2 != h) {
			t.Fatal("the head alone decodes to something else")
		}
		if err != nil {
			return
		}
		if out, err := c.Open(nil, ToResponder, &h, sealed); err == nil {
			b = bytes.Clone(b)
			b[30], b[31] = b[30]&byte(knownControlFlags), 0 // unknown flags are dropped
			again, err := c.Seal(nil, ToResponder, h.Seq, h.Flags, out)
			if err != nil || !bytes.Equal(again, b) {
				t.Fatalf("seals to %x, %v", again, err)
			}
		}
	})
}

// FuzzHandshake decodes hostile hellos, acks and retries: what decodes encodes to
// the same bytes.
func FuzzHandshake(f *testing.F) {
	h := Hello{From: "a", To: "b", Suites: []Suite{1, 2}, Timestamp: 3, Limit: 1200, Cookie: make([]byte, CookieSize), Signature: []byte{1}}
	a := Ack{From: "b", To: "a", Suite: 1, Signature: []byte{2}}
	r := Retry{From: "b", To: "a"}
	for _, enc := range []func() ([]byte, error){h.Encode, a.Encode, r.Encode} {
		b, err := enc()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(again []byte, err error) {
			if err != nil || !bytes.Equal(again, b) {
				t.Fatalf("encodes to %x, %v", again, err)
			}
		}
		if h, err := DecodeHello(b); err == nil {
			check(h.Encode())
			if _, err := h.Transcript(); err != nil {
				t.Fatal(err)
			}
			CookieFits(Key{}, &h)
		}
		if a, err := DecodeAck(b); err == nil {
			check(a.Encode())
		}
		if r, err := DecodeRetry(b); err == nil {
			check(r.Encode())
		}
	})
}
