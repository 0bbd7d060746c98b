package wire

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
)

// vectorDir is where the vectors of the Rust reference are: beside the repository.
func vectorDir() string {
	if d := os.Getenv("FCP_VECTORS"); d != "" {
		return d
	}
	return filepath.Join("..", "..", "..", "shared", "vectors")
}

// bin is hex in the vectors.
type bin []byte

func (b *bin) UnmarshalText(t []byte) error {
	out, err := hex.DecodeString(string(t))
	*b = out
	return err
}

type vector struct {
	Name, Kind    string
	Input, Expect json.RawMessage
}

// vectors calls fn with each case of a class. Without the folder the test is
// skipped, or fails under CI.
func vectors(t *testing.T, class string, fn func(*testing.T, vector)) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectorDir(), class+".json"))
	if errors.Is(err, os.ErrNotExist) && os.Getenv("CI") != "true" {
		t.Skipf("did NOT run: no vectors of class %s in %s", class, vectorDir())
	}
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Class string
		Cases []vector
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	if file.Class != class || len(file.Cases) == 0 {
		t.Fatalf("class %q with %d cases in the file of %s", file.Class, len(file.Cases), class)
	}
	for _, v := range file.Cases {
		t.Run(v.Name, func(t *testing.T) { fn(t, v) })
	}
}

func parse[T any](t *testing.T, raw json.RawMessage) (v T) {
	t.Helper()
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func same(t *testing.T, what string, got []byte, want bin) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s\n got %x\nwant %x", what, got, []byte(want))
	}
}

type symbolJSON struct {
	ESI     uint32
	K       uint16
	Data    bin
	AuthTag bin `json:"auth_tag"`
}

func (s *symbolJSON) record() Record {
	return Record{ESI: s.ESI, K: s.K, Data: s.Data, Tag: [TagSize]byte(s.AuthTag)}
}

type frameJSON struct {
	Version     uint16
	Flags       Flags
	SymbolCount uint32 `json:"symbol_count"`
	PayloadLen  uint32 `json:"total_payload_len"`
	ObjectID    bin    `json:"object_id"`
	SymbolSize  uint16 `json:"symbol_size"`
	ZoneKeyID   bin    `json:"zone_key_id"`
	ZoneIDHash  bin    `json:"zone_id_hash"`
	EpochID     uint64 `json:"epoch_id"`
	Sender      uint64 `json:"sender_instance_id"`
	FrameSeq    uint64 `json:"frame_seq"`
	Symbols     []symbolJSON
	MaxDatagram int `json:"max_datagram_bytes"`
	Bytes       bin
	PerFrame    int `json:"symbols_per_frame"`
	ESI         uint32
	K           uint16
	Data        bin
	AuthTag     bin `json:"auth_tag"`
}

func (f *frameJSON) header() Header {
	return Header{Flags: f.Flags, Object: [32]byte(f.ObjectID), SymbolSize: f.SymbolSize, ZoneKey: [8]byte(f.ZoneKeyID),
		ZoneHash: fcp.Hash(f.ZoneIDHash), Epoch: f.EpochID, Sender: f.Sender, Seq: f.FrameSeq}
}

type outcome struct {
	Accept  bool
	Error   string
	Header  bin
	Frame   bin
	Record  bin
	Records []bin `json:"symbol_records"`
}

// refused checks that err carries the reason that the vector names.
func refused(t *testing.T, err error, o outcome) {
	t.Helper()
	if o.Accept {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	if !errors.Is(err, fcp.Reason(o.Error)) {
		t.Errorf("got %v, want reason %s", err, o.Error)
	}
}

func TestVectorsOfSymbolFrames(t *testing.T) {
	vectors(t, "fcps_frame", func(t *testing.T, v vector) {
		in := parse[frameJSON](t, v.Input)
		var want outcome
		if v.Kind != "flags" {
			want = parse[outcome](t, v.Expect)
		}
		switch v.Kind {
		case "frame":
			f := Frame{Header: in.header()}
			for i := range in.Symbols {
				f.Records = append(f.Records, in.Symbols[i].record())
				same(t, "record", f.Records[i].AppendTo(nil), want.Records[i])
			}
			b, err := f.AppendTo(nil, LayoutReference)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "frame", b, want.Frame)
			same(t, "header", b[:headReference], want.Header)
			again, err := DecodeFrame(want.Frame, LayoutReference, 0)
			if err != nil {
				t.Fatal(err)
			}
			b, err = again.AppendTo(nil, LayoutReference)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "decoded and encoded", b, want.Frame)
		case "header":
			h := in.header()
			same(t, "header", h.appendTo(nil, LayoutReference, in.SymbolCount, in.PayloadLen), want.Header)
			if got := headerOf(want.Header, LayoutReference); got != h {
				t.Errorf("decoded %+v, want %+v", got, h)
			}
		case "symbol_record":
			s := symbolJSON{in.ESI, in.K, in.Data, in.AuthTag}
			r := s.record()
			same(t, "record", r.AppendTo(nil), want.Record)
			got := recordOf(want.Record)
			same(t, "decoded record", got.AppendTo(nil), want.Record)
		case "flags":
			for name, bit := range parse[map[string]Flags](t, v.Expect) {
				if got, ok := flagsByName[name]; !ok || got != bit {
					t.Errorf("%s is %#x, want %#x", name, got, bit)
				}
			}
		default:
			t.Fatalf("unknown kind %s", v.Kind)
		}
	})
}

var flagsByName = map[string]Flags{"REQUIRES_ACK": FlagRequiresAck, "COMPRESSED": FlagCompressed, "ENCRYPTED": FlagEncrypted,
	"RESPONSE": FlagResponse, "ERROR": FlagError, "STREAMING": FlagStreaming, "STREAM_END": FlagStreamEnd, "HAS_CAP_TOKEN": FlagCapToken,
	"ZONE_CROSSING": FlagZoneCrossing, "PRIORITY": FlagPriority, "RAPTORQ": FlagRaptorQ, "CONTROL_PLANE": FlagControlPlane, "default": DefaultFlags}

func TestVectorsOfInvalidSymbolFrames(t *testing.T) {
	vectors(t, "fcps_invalid", func(t *testing.T, v vector) {
		in := parse[frameJSON](t, v.Input)
		_, err := DecodeFrame(in.Bytes, LayoutReference, in.MaxDatagram)
		refused(t, err, parse[outcome](t, v.Expect))
	})
}

func TestVectorsOfDatagrams(t *testing.T) {
	vectors(t, "fcps_datagram", func(t *testing.T, v vector) {
		in, want := parse[frameJSON](t, v.Input), parse[outcome](t, v.Expect)
		d, err := DecodeDatagram(in.Bytes, in.MaxDatagram)
		refused(t, err, want)
		if want.Frame == nil {
			return
		}
		fields := parse[struct {
			Session bin `json:"session_id"`
			Seq     uint64
			MAC     bin
		}](t, v.Expect)
		same(t, "session", d.Session[:], fields.Session)
		same(t, "mac", d.MAC[:], fields.MAC)
		same(t, "frame", d.Frame, want.Frame)
		if d.Seq != fields.Seq {
			t.Errorf("number %d, want %d", d.Seq, fields.Seq)
		}
	})
}

func TestVectorsOfControlFrames(t *testing.T) {
	vectors(t, "fcpc_frame", func(t *testing.T, v vector) {
		in := parse[struct {
			Session        bin `json:"session_id"`
			Key, Plaintext bin
			Seq            uint64
			Flags          ControlFlags
			Direction      string
			Len            uint32
			Bytes          bin
		}](t, v.Input)
		want := parse[struct {
			Header, Ciphertext, Tag, Frame bin
		}](t, v.Expect)
		switch v.Kind {
		case "seal":
			d := map[string]Direction{"i2r": ToResponder, "r2i": ToInitiator}[in.Direction]
			c, err := NewControlCipher(SessionID(in.Session), Key(in.Key))
			if err != nil {
				t.Fatal(err)
			}
			b, err := c.Seal(nil, d, in.Seq, in.Flags, in.Plaintext)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "frame", b, want.Frame)
			h, sealed, err := DecodeControl(want.Frame, MaxControl)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "head", h.AppendTo(nil), want.Header)
			same(t, "sealed", sealed, append(append(bin{}, want.Ciphertext...), want.Tag...))
			plain, err := c.Open(nil, d, &h, sealed)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "plaintext", plain, in.Plaintext)
		case "header":
			h := ControlHead{SessionID(in.Session), in.Seq, in.Flags, in.Len}
			same(t, "head", h.AppendTo(nil), want.Header)
			if got, err := DecodeControlHead(want.Header, MaxControl); err != nil || got != h {
				t.Errorf("decoded %+v, %v", got, err)
			}
		case "decode":
			_, _, err := DecodeControl(in.Bytes, MaxControl)
			refused(t, err, parse[outcome](t, v.Expect))
		default:
			t.Fatalf("unknown kind %s", v.Kind)
		}
	})
}

func TestVectorsOfInvalidControlFrames(t *testing.T) {
	vectors(t, "fcpc_invalid", func(t *testing.T, v vector) {
		_, _, err := DecodeControl(parse[frameJSON](t, v.Input).Bytes, MaxControl)
		refused(t, err, parse[outcome](t, v.Expect))
	})
}

func TestVectorsOfSymbolEncryption(t *testing.T) {
	vectors(t, "symbol_aead", func(t *testing.T, v vector) {
		in := parse[frameJSON](t, v.Input)
		want := parse[struct{ Nonce, AAD bin }](t, v.Expect)
		switch v.Kind {
		case "nonce12":
			n := Nonce12(in.FrameSeq, in.ESI)
			same(t, "nonce", n[:], want.Nonce)
		case "nonce24":
			n := Nonce24(in.Sender, in.FrameSeq, in.ESI)
			same(t, "nonce", n[:], want.Nonce)
		case "symbol_aad":
			h := in.header()
			same(t, "aad", AppendSymbolAAD(nil, &h, in.ESI, in.K), want.AAD)
		default:
			t.Fatalf("unknown kind %s", v.Kind)
		}
	})
}

type helloJSON struct {
	From, To  string
	Ephemeral bin `json:"eph_pubkey"`
	Nonce     bin
	Cookie    bin
	Session   bin `json:"session_id"`
	Suite     Suite
	Timestamp uint64
	Suites    []Suite
	Limit     uint64 `json:"max_datagram_bytes"`
}

func (h *helloJSON) hello() *Hello {
	return &Hello{From: h.From, To: h.To, Ephemeral: [32]byte(h.Ephemeral), Nonce: [16]byte(h.Nonce), Cookie: h.Cookie,
		Timestamp: h.Timestamp, Suites: h.Suites, Limit: h.Limit}
}

func (h *helloJSON) ack() *Ack {
	return &Ack{From: h.From, To: h.To, Ephemeral: [32]byte(h.Ephemeral), Nonce: [16]byte(h.Nonce), Session: SessionID(h.Session),
		Suite: h.Suite, Timestamp: h.Timestamp}
}

// edKey verifies with a plain key.
type edKey ed25519.PublicKey

func (k edKey) Verify(message, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && ed25519.Verify(ed25519.PublicKey(k), message, sig)
}

func TestVectorsOfTheHandshake(t *testing.T) {
	vectors(t, "session_handshake", func(t *testing.T, v vector) {
		in := parse[struct {
			Hello, Ack *helloJSON
			Seed       bin `json:"signing_seed"`
			CookieKey  bin `json:"cookie_key"`
			Suite      Suite
			Key        bin
			Session    bin `json:"session_id"`
			Direction  Direction
			Seq        uint64
			Frame      bin
			CBOR       bin
			Mutate     string
			Initiator  []Suite `json:"initiator_suites"`
			Responder  []Suite `json:"responder_suites"`
		}](t, v.Input)
		want := parse[struct {
			Transcript, CBOR, Cookie, MAC bin
			Error                         string
			Digest                        bin `json:"blake3_of_transcript"`
		}](t, v.Expect)
		ok := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		switch v.Kind {
		case "hello_transcript":
			b, err := in.Hello.hello().Transcript()
			ok(err)
			same(t, "transcript", b, want.Transcript)
		case "ack_transcript":
			b, err := in.Ack.ack().Transcript(in.Hello.hello())
			ok(err)
			same(t, "transcript", b, want.Transcript)
			sum := blake3.Sum256(b)
			same(t, "its BLAKE3", sum[:], want.Digest)
		case "hello_cbor":
			h, key := in.Hello.hello(), ed25519.NewKeyFromSeed(in.Seed)
			m, err := h.Transcript()
			ok(err)
			h.Signature = ed25519.Sign(key, m)
			b, err := h.Encode()
			ok(err)
			same(t, "hello", b, want.CBOR)
			again, err := DecodeHello(want.CBOR)
			ok(err)
			ok(again.Verify(h.To, edKey(key.Public().(ed25519.PublicKey)), time.Unix(int64(h.Timestamp), 0)))
		case "ack_cbor":
			h, a, key := in.Hello.hello(), in.Ack.ack(), ed25519.NewKeyFromSeed(in.Seed)
			m, err := a.Transcript(h)
			ok(err)
			a.Signature = ed25519.Sign(key, m)
			b, err := a.Encode()
			ok(err)
			same(t, "ack", b, want.CBOR)
			again, err := DecodeAck(want.CBOR)
			ok(err)
			ok(again.Verify(h, edKey(key.Public().(ed25519.PublicKey)), time.Unix(int64(a.Timestamp), 0)))
		case "cookie":
			c, err := CookieFor(Key(in.CookieKey), in.Hello.hello())
			ok(err)
			same(t, "cookie", c[:], want.Cookie)
			h := in.Hello.hello()
			h.Cookie = c[:]
			if !CookieFits(Key(in.CookieKey), h) {
				t.Error("the cookie does not fit its hello")
			}
			h.Timestamp++
			if CookieFits(Key(in.CookieKey), h) {
				t.Error("the cookie fits another hello")
			}
		case "session_mac":
			m, err := NewMAC(in.Suite, Key(in.Key), SessionID(in.Session), in.Direction)
			ok(err)
			sum := m.Sum(in.Seq, in.Frame)
			same(t, "mac", sum[:], want.MAC)
		case "hello_decode":
			_, err := DecodeHello(in.CBOR)
			refused(t, err, outcome{Error: want.Error})
		case "bad_handshake":
			if in.Mutate == "" {
				if _, err := PickSuite(in.Initiator, in.Responder); !errors.Is(err, ReasonSuite) {
					t.Errorf("got %v, want %s", err, ReasonSuite)
				}
				return
			}
			h := Hello{From: "a", To: "b", Timestamp: 1, Suites: []Suite{1}}
			if err := h.Verify("b", edKey(make([]byte, 32)), time.Unix(1, 0)); !errors.Is(err, ReasonSignature) {
				t.Errorf("%s: got %v", in.Mutate, err)
			}
		default:
			t.Fatalf("unknown kind %s", v.Kind)
		}
	})
}

func TestVectorsOfSessionKeys(t *testing.T) {
	vectors(t, "session_keys", func(t *testing.T, v vector) {
		in := parse[struct {
			Initiator  string `json:"initiator_id"`
			Responder  string `json:"responder_id"`
			InitSK     bin    `json:"initiator_ephemeral_sk"`
			InitPK     bin    `json:"initiator_ephemeral_pk"`
			RespSK     bin    `json:"responder_ephemeral_sk"`
			RespPK     bin    `json:"responder_ephemeral_pk"`
			HelloNonce bin    `json:"hello_nonce"`
			AckNonce   bin    `json:"ack_nonce"`
			Session    bin    `json:"session_id"`
		}](t, v.Input)
		want := parse[struct {
			Secret bin `json:"shared_secret"`
			I2R    bin `json:"k_mac_i2r"`
			R2I    bin `json:"k_mac_r2i"`
			Ctx    bin `json:"k_ctx"`
		}](t, v.Expect)
		for _, side := range []struct{ own, peer bin }{{in.InitSK, in.RespPK}, {in.RespSK, in.InitPK}} {
			key, err := ecdh.X25519().NewPrivateKey(side.own)
			if err != nil {
				t.Fatal(err)
			}
			secret, err := SharedSecret(key, [32]byte(side.peer))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "shared secret", secret, want.Secret)
			k, err := DeriveKeys(secret, &KeyInput{Initiator: in.Initiator, Responder: in.Responder,
				HelloNonce: [16]byte(in.HelloNonce), AckNonce: [16]byte(in.AckNonce), Session: SessionID(in.Session)})
			if err != nil {
				t.Fatal(err)
			}
			same(t, "k_mac_i2r", k.MAC[ToResponder][:], want.I2R)
			same(t, "k_mac_r2i", k.MAC[ToInitiator][:], want.R2I)
			same(t, "k_ctx", k.Context[:], want.Ctx)
		}
	})
}

func TestVectorsOfReplayWindows(t *testing.T) {
	vectors(t, "replay_window", func(t *testing.T, v vector) {
		in := parse[struct {
			Window int
			Steps  []uint64
		}](t, v.Input)
		want := parse[struct{ Results []bool }](t, v.Expect)
		w := NewWindow(in.Window)
		for i, n := range in.Steps {
			if got := w.Accept(n); got != want.Results[i] {
				t.Errorf("step %d, number %d: %v", i, n, got)
			}
		}
	})
}

func TestVectorsOfSymbolCounts(t *testing.T) {
	vectors(t, "raptorq", func(t *testing.T, v vector) {
		in := parse[struct {
			Len        int
			SymbolSize int `json:"symbol_size"`
			ChunkSize  int `json:"chunk_size"`
			Bps        int `json:"repair_ratio_bps"`
			K          int
			Limit      int `json:"max_datagram_bytes"`
			PerFrame   int `json:"symbols_per_frame"`
		}](t, v.Input)
		want := parse[struct {
			Source, Repair, Total, Chunks int
			SymbolSize                    *int `json:"symbol_size"`
			Bps                           int  `json:"repair_ratio_bps"`
			MaxObject                     int  `json:"max_object_size"`
			Timeout                       int  `json:"decode_timeout_secs"`
			Threshold                     int  `json:"max_chunk_threshold"`
			ChunkSize                     int  `json:"chunk_size"`
		}](t, v.Expect)
		switch v.Kind {
		case "symbols":
			k := Pieces(in.Len, in.SymbolSize)
			if r := RepairSymbols(k, in.Bps); k != want.Source || r != want.Repair || k+r != want.Total {
				t.Errorf("%d source and %d repair symbols, want %+v", k, r, want)
			}
		case "repair":
			if got := RepairSymbols(in.K, in.Bps); got != want.Repair {
				t.Errorf("%d, want %d", got, want.Repair)
			}
		case "chunks":
			if got := Pieces(in.Len, in.ChunkSize); got != want.Chunks {
				t.Errorf("%d, want %d", got, want.Chunks)
			}
		case "mtu_safe":
			size, ok := SymbolRoom(in.Limit, in.PerFrame)
			if ok != (want.SymbolSize != nil) || ok && size != *want.SymbolSize {
				t.Errorf("%d, %v", size, ok)
			}
		case "const":
			if want.SymbolSize == nil || *want.SymbolSize != fcp.SymbolSize || want.Bps != ReferenceRepairBps || want.MaxObject != ReferenceMaxObject ||
				want.Timeout != int(ReferenceDecodeTimeout/time.Second) || want.Threshold != ReferenceChunkThreshold || want.ChunkSize != ReferenceChunk {
				t.Errorf("the reference's defaults are %+v", want)
			}
		default:
			t.Fatalf("unknown kind %s", v.Kind)
		}
	})
}
