package wire

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"fcp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// nativeFrame is the frame of testdata/symbol-frame.txt.
func nativeFrame() *Frame {
	f := &Frame{Header: Header{Flags: DefaultFlags, SymbolSize: 8, Epoch: 1000, Seq: 42}}
	for i := range f.Object {
		f.Object[i] = 0x11
	}
	for i := range f.ZoneKey {
		f.ZoneKey[i] = 0x22
	}
	for i := range f.ZoneHash {
		f.ZoneHash[i] = 0x33
	}
	r := Record{ESI: 7, K: 10, Data: bytes.Repeat([]byte{0xaa}, 8)}
	for i := range r.Tag {
		r.Tag[i] = 0xbb
	}
	f.Records = []Record{r}
	return f
}

// TestNativeFrameIsAsDocumented compares the encoding with annotated bytes: each
// line of the file is the hex of one field and what it is.
func TestNativeFrameIsAsDocumented(t *testing.T) {
	const file = "testdata/symbol-frame.txt"
	b, err := nativeFrame().AppendTo(nil, LayoutNative)
	if err != nil {
		t.Fatal(err)
	}
	fields := []struct {
		n    int
		what string
	}{{4, "magic \"FCPS\""}, {2, "u16le version: 2, the native layout"}, {2, "u16le flags: ENCRYPTED, RAPTORQ"}, {4, "u32le symbols: 1"},
		{4, "u32le bytes of records: 30"}, {32, "object id"}, {2, "u16le symbol size: 8"}, {8, "zone key id"}, {32, "zone id hash"},
		{8, "u64le epoch: 1000"}, {8, "u64le frame number: 42"}, {4, "record: u32le encoding symbol id: 7"}, {2, "record: u16le K: 10"},
		{8, "record: sealed symbol"}, {16, "record: tag"}, {8, "u64le XXH3-64 of everything before"}}
	var out strings.Builder
	rest := b
	for _, f := range fields {
		out.WriteString(hex.EncodeToString(rest[:f.n]) + "  # " + f.what + "\n")
		rest = rest[f.n:]
	}
	if len(rest) != 0 {
		t.Fatalf("%d bytes are not explained", len(rest))
	}
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	if len(b) != headNative+RecordOverhead+8+checksumSize {
		t.Errorf("%d bytes", len(b))
	}
}

func TestOneSymbolFillsTheDefaultDatagramInEachLayout(t *testing.T) {
	for _, l := range []Layout{LayoutNative, LayoutReference} {
		if FrameRoom(l, fcp.SymbolSize, DefaultDatagram) != 1 || FrameRoom(l, fcp.SymbolSize, DefaultDatagram-1) != 0 {
			t.Errorf("layout %d: a frame of one symbol is not exactly %d bytes in its envelope", l, DefaultDatagram)
		}
	}
}

// TestFlippedBytesAreRefused flips each byte of a native frame: the checksum, or a
// check before it, sees it.
func TestFlippedBytesAreRefused(t *testing.T) {
	b, err := nativeFrame().AppendTo(nil, LayoutNative)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 1
		if _, err := DecodeFrame(c, LayoutNative, 0); !errors.Is(err, fcp.Corrupt) && !errors.Is(err, fcp.CodeVersion) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
}

func TestStrictDecodingAppliesThePolicy(t *testing.T) {
	frame := func(mutate func(*Frame)) []byte {
		f := &Frame{Header: Header{Flags: DefaultFlags, SymbolSize: 256}, Records: []Record{{Data: make([]byte, 256)}}}
		mutate(f)
		b, err := f.AppendTo(nil, LayoutReference)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	resize := func(n int) func(*Frame) {
		return func(f *Frame) { f.SymbolSize, f.Records[0].Data = uint16(n), make([]byte, n) }
	}
	for name, c := range map[string]struct {
		mutate func(*Frame)
		want   fcp.Reason
	}{
		"good":          {func(*Frame) {}, ""},
		"unknown flag":  {func(f *Frame) { f.Flags |= 1 << 12 }, ReasonFlags},
		"small symbols": {resize(248), ReasonSymbolSize},
		"large symbols": {resize(16392), ReasonSymbolSize},
		"unaligned":     {resize(257), ReasonSymbolSize},
		"no symbols":    {func(f *Frame) { f.Records = nil }, ReasonPayload},
		"too many": {func(f *Frame) {
			for len(f.Records) <= MaxFrameSymbols {
				f.Records = append(f.Records, f.Records[0])
			}
		}, ReasonPayload},
	} {
		_, err := DecodeStrict(frame(c.mutate), LayoutReference, 0)
		if c.want == "" && err != nil || c.want != "" && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestSymbolsOpenOnlyWhereTheyWereSealed(t *testing.T) {
	key := Key{1}
	seal, err := NewSymbolCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	extended, err := NewExtendedSymbolCipher(key, 9)
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewSymbolCipher(Key{2})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*SymbolCipher{"12-byte nonce": seal, "24-byte nonce": extended} {
		h := Header{Flags: DefaultFlags, Object: [32]byte{4}, SymbolSize: 64, Epoch: 5, Seq: 6}
		symbol := bytes.Repeat([]byte{7}, 64)
		b := c.AppendSealed(nil, LayoutNative, &h, 9, []uint32{8}, func(int) []byte { return symbol })
		f, err := DecodeFrame(b, LayoutNative, 0)
		if err != nil {
			t.Fatal(name, err)
		}
		if again, err := f.AppendTo(nil, LayoutNative); err != nil || !bytes.Equal(again, b) {
			t.Fatal(name, "the fast path encodes something else", err)
		}
		got, err := c.Open(nil, &f.Header, &f.Records[0])
		if err != nil || !bytes.Equal(got, symbol) {
			t.Fatal(name, err)
		}
		for what, try := range map[string]func(h *Header, r *Record) *SymbolCipher{
			"another frame":  func(h *Header, _ *Record) *SymbolCipher { h.Seq++; return c },
			"another object": func(h *Header, _ *Record) *SymbolCipher { h.Object[0]++; return c },
			"another epoch":  func(h *Header, _ *Record) *SymbolCipher { h.Epoch++; return c },
			"another zone":   func(h *Header, _ *Record) *SymbolCipher { h.ZoneHash[0]++; return c },
			"another key id": func(h *Header, _ *Record) *SymbolCipher { h.ZoneKey[0]++; return c },
			"another ESI":    func(_ *Header, r *Record) *SymbolCipher { r.ESI++; return c },
			"another K":      func(_ *Header, r *Record) *SymbolCipher { r.K++; return c },
			"another tag":    func(_ *Header, r *Record) *SymbolCipher { r.Tag[0]++; return c },
			"another key":    func(*Header, *Record) *SymbolCipher { return other },
		} {
			h2, r2 := f.Header, f.Records[0]
			if _, err := try(&h2, &r2).Open(nil, &h2, &r2); !errors.Is(err, ReasonAEAD) {
				t.Errorf("%s: a symbol opens in %s: %v", name, what, err)
			}
		}
	}
}

func TestDatagramsFitOnlyTheirSessionAndDirection(t *testing.T) {
	session := SessionID{1}
	for _, suite := range []Suite{SuiteHMAC, SuiteBLAKE3} {
		m, err := NewMAC(suite, Key{3}, session, ToResponder)
		if err != nil {
			t.Fatal(err)
		}
		b := append(make([]byte, EnvelopeSize), "frame"...)
		m.Seal(b, 77)
		d, err := DecodeDatagram(b, DefaultDatagram)
		if err != nil || d.Seq != 77 || string(d.Frame) != "frame" || !m.Fits(&d) {
			t.Fatalf("suite %d: %+v, %v", suite, d, err)
		}
		back, err := NewMAC(suite, Key{3}, session, ToInitiator)
		if err != nil {
			t.Fatal(err)
		}
		other, err := NewMAC(suite, Key{3}, SessionID{2}, ToResponder)
		if err != nil {
			t.Fatal(err)
		}
		later := d
		later.Seq++
		if back.Fits(&d) || other.Fits(&d) || m.Fits(&later) {
			t.Errorf("suite %d: a datagram fits where it does not belong", suite)
		}
	}
	if _, err := NewMAC(3, Key{}, session, ToResponder); !errors.Is(err, ReasonSuite) {
		t.Errorf("suite 3: %v", err)
	}
}

// TestControlFramesBindWhatTheyCarry tries every field of a frame's head.
func TestControlFramesBindWhatTheyCarry(t *testing.T) {
	session := SessionID{5}
	c, err := NewControlCipher(session, Key{6})
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Seal(nil, ToResponder, 3, 0, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	h, sealed, err := DecodeControl(b, MaxControl)
	if err != nil || h.Flags != ControlEncrypted {
		t.Fatal(h, err)
	}
	if _, err := c.Open(nil, ToInitiator, &h, sealed); !errors.Is(err, ReasonAEAD) {
		t.Error("a frame opens in the other direction:", err)
	}
	for name, mutate := range map[string]func(*ControlHead){
		"number":  func(h *ControlHead) { h.Seq++ },
		"session": func(h *ControlHead) { h.Session[0]++ },
		"flags":   func(h *ControlHead) { h.Flags |= ControlCompressed },
		"clear":   func(h *ControlHead) { h.Flags = 0 },
	} {
		h2 := h
		mutate(&h2)
		if _, err := c.Open(nil, ToResponder, &h2, sealed); !errors.Is(err, ReasonAEAD) {
			t.Errorf("a frame opens with another %s: %v", name, err)
		}
	}
	if _, err := c.Seal(nil, ToResponder, 4, 0, make([]byte, MaxControl+1)); !errors.Is(err, ReasonPayload) {
		t.Error(err)
	}
}

func TestSessionKeysAreBoundToTheirCarrier(t *testing.T) {
	secret := bytes.Repeat([]byte{9}, 32)
	in := KeyInput{Initiator: "a", Responder: "b", Session: SessionID{1}}
	plain, err := DeriveKeys(secret, &in)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[Key]string{plain.Context: "no binding"}
	for name, binding := range map[string][]byte{
		"exporter": Bind([]byte("x"), nil, nil), "hello": Bind(nil, []byte("x"), nil), "ack": Bind(nil, nil, []byte("x")), "none": Bind(nil, nil, nil),
	} {
		in.Binding = binding
		k, err := DeriveKeys(secret, &in)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[k.Context]; ok {
			t.Errorf("%s gives the keys of %s", name, other)
		}
		seen[k.Context] = name
		there, err1 := k.SymbolKey(ToResponder)
		back, err2 := k.SymbolKey(ToInitiator)
		if err1 != nil || err2 != nil || there == back || there == k.Context {
			t.Error("symbol keys are not apart", err1, err2)
		}
	}
	own, err := ecdh.X25519().NewPrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := SharedSecret(own, [32]byte{}); !errors.Is(err, fcp.CodeMalformed) {
		t.Error("a key of small order is taken:", err)
	}
}

// TestWindowAcceptsEachNumberOnce compares the window with a set.
func TestWindowAcceptsEachNumberOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{0, 1, 2, 63, 64, 65, 128, 200, DefaultWindow}).Draw(t, "size")
		w, seen, highest := NewWindow(size), map[uint64]bool{}, uint64(0)
		span := uint64(max(size, 1))
		at := uint64(1)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				at++
			case 1:
				at += rapid.Uint64Range(0, 2*span+70).Draw(t, "ahead")
			default:
				at -= min(at, rapid.Uint64Range(0, span+3).Draw(t, "behind"))
			}
			want := at != 0 && !seen[at] && (at > highest || highest-at < span)
			if got := w.Accept(at); got != want {
				t.Fatalf("number %d with highest %d: %v", at, highest, got)
			}
			if want {
				seen[at] = true
				highest = max(highest, at)
			}
		}
	})
}

func TestLimitsOfTwoSides(t *testing.T) {
	for _, c := range []struct {
		a, b uint64
		want int
	}{{0, 0, 1200}, {0, 1400, 1200}, {1300, 1400, 1300}, {1000, 0, 1000}, {1 << 40, 1 << 50, 65535}} {
		if got := Limit(c.a, c.b); got != c.want {
			t.Errorf("Limit(%d, %d) = %d", c.a, c.b, got)
		}
	}
}
