package cddl

import (
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMatch has one row for each construct, and for each a value that it refuses.
// The values are in the examples of RFC 8949 appendix A or follow from it.
func TestMatch(t *testing.T) {
	for _, c := range []struct{ schema, good, bad string }{
		{`a = uint`, "1903e8 00 1bffffffffffffffff", "20 60 40 80 a0 f4"},
		{`a = int`, "20 00 3903e7", "60"},
		{`a = nint`, "20 3bffffffffffffffff", "00"},
		{`a = bstr`, "40 4401020304", "60"},
		{`a = tstr`, "60 6449455446", "40 61ff"},
		{`a = bool / null`, "f4 f5 f6", "f7 00"},
		{`a = true`, "f5", "f4"},
		{`a = any`, "80 f7", ""},
		{`a = #`, "80 a0", ""},
		{`a = 5`, "05", "06 6135"},
		{`a = -3`, "22", "02"},
		{`a = 0x10`, "10", "00"},
		{`a = "IETF"`, "6449455446", "60 4449455446"},
		{`a = h'01ff'`, "4201ff", "4201fe"},
		{`a = 'IETF'`, "4449455446", "6449455446 40"},
		{`a = 1..3`, "01 03", "00 04 21"},
		{`a = 1...3`, "01 02", "03"},
		{`a = -2..1`, "21 20 01", "22 02"},
		{`a = (1 / 2)`, "01 02", "03"},
		{"a = b\nb = 1\nb /= 2", "01 02", "03"},
		{`a = bstr .size 2`, "420102", "4101 43010203"},
		{`a = bstr .size (1..2)`, "4101 420102", "40 43010203"},
		{`a = tstr .size 4`, "6449455446", "60"},
		{`a = uint .size 1`, "00 18ff", "190100"},
		{`a = bstr .cbor [uint]`, "428101", "4180 4101 40 43810100"},
		{`a = tstr .regexp "[a-z]+[0-9]"`, "626131", "6161 63613131 606131"},
		{`a = uint .lt 5`, "04", "05"},
		{`a = uint .le 5`, "05", "06"},
		{`a = uint .gt 5`, "06", "05"},
		{`a = uint .ge 5`, "05", "04"},
		{`a = uint .eq 5`, "05", "04"},
		{`a = uint .ne 5`, "04", "05"},
		{`a = int .within uint`, "04", "20"},
		{`a = []`, "80", "8101"},
		{`a = [uint, tstr]`, "820160", "8101 830160f4 826001"},
		{`a = [* uint]`, "80 820102", "8160 82f401"},
		{`a = [+ uint]`, "8101", "80"},
		{`a = [1*2 uint]`, "8101 820102", "80 83010203"},
		{`a = [2* uint]`, "820102 83010203", "8101"},
		{`a = [*2 uint]`, "80 820102", "83010203"},
		{`a = [? uint, tstr]`, "8160 820160", "80 8101"},
		{`a = [(uint, tstr // tstr, uint)]`, "820160 826001", "820102"},
		{`a = [* (uint, tstr)]`, "80 820160 8401600260", "8101 83016002"},
		{"a = [* b]\nb = (uint, tstr)", "80 820160 8401600260", "8101 83016002"},
		{"a = [b, bool]\nb = (uint // tstr)\nb //= (nint)", "8201f4 8260f4 8220f4", "8240f4"},
		{`a = [x: uint, y: tstr]`, "820160", "8101"},
		{`a = {}`, "a0", "a10102"},
		{`a = {x: uint}`, "a1617801", "a0 a1617860 a1617901 a2617801617901"},
		{`a = {x: uint, ? y: tstr}`, "a1617801 a2617801617960", "a2617801617901 a1617960"},
		{`a = {"x": uint}`, "a1617801", "a1417801"},
		{`a = {1: uint, -2: tstr}`, "a201022160", "a10102 a2010260 00"},
		{`a = {* tstr => uint}`, "a0 a26178016179 02", "a10102 a1617860"},
		{`a = {x: uint, * tstr => any}`, "a2617801617960", "a2617860617960 a1617960"},
		{`a = {"x" ^ => uint, * tstr => any}`, "a1617801", "a1617860"},
		{`a = {"x" => uint, * tstr => any}`, "a1617801", "a1617960"},
		{`a = {? x: uint, * tstr => any}`, "a0 a1617801 a1617960", "a1617860"},
		{`a = {(x: uint // y: tstr)}`, "a1617801 a1617960", "a0 a2617801617960"},
		{`a = {x: uint // y: tstr}`, "a1617801 a1617960", "a0 a2617801617960"},
		{"a = {b, z: bool}\nb = (x: uint, y: uint)", "a3617801617902617af4", "a2617801617af4"},
		{"a = {? b, z: bool}\nb = (x: uint, y: uint)", "a3617801617902617af4 a1617af4", "a2617801617af4"},
		{"; a comment\na = uint ; another\n", "00", "60"},
		{"a-b.c = uint\na = a-b.c", "00", "60"},
	} {
		s, err := Parse(c.schema)
		if err != nil {
			t.Errorf("%s: %v", c.schema, err)
			continue
		}
		for _, good := range items(t, c.good) {
			if err := s.Match("a", good); err != nil {
				t.Errorf("%s refuses %x: %v", c.schema, good, err)
			}
		}
		for _, bad := range items(t, c.bad) {
			if s.Match("a", bad) == nil {
				t.Errorf("%s takes %x", c.schema, bad)
			}
		}
	}
}

// items splits hex into data items.
func items(t *testing.T, s string) (out [][]byte) {
	b := unhex(t, s)
	for len(b) > 0 {
		_, n, err := decode(b, 0)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b[:n])
		b = b[n:]
	}
	return out
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{
		"a = b", "a", "a = ", "= uint", "a = uint\na = tstr", "a /= uint", "a = {x: }", "a = [uint", "a = {uint", `a = "x`, "a = h'0'", "a = h'zz'", "a = 'x",
		"a = b<uint>", "a = #6.2(uint)", "a = uint .bits 1", "a = uint .lt tstr", `a = tstr .regexp "("`, "a = tstr .regexp 1", "a = 1..x", "a = uint %",
		"uint = tstr", "a = uint tstr", "b = (uint, tstr)\na = b / uint", "a = {b: c}\nc = (x: uint, y: uint)", "a = 99999999999999999999",
	} {
		if _, err := Parse(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

func TestMatchSaysWhere(t *testing.T) {
	s, err := Parse("a = {list: [* b]}\nb = {n: uint}")
	if err != nil {
		t.Fatal(err)
	}
	err = s.Match("a", unhex(t, "a1646c69737482a1616e01a1616e60"))
	if err == nil || !strings.Contains(err.Error(), `a."list"[1]."n"`) {
		t.Errorf("%v", err)
	}
	if s.Match("missing", []byte{0}) == nil {
		t.Error("a rule that is not there matches")
	}
}

func TestKeysAndDoc(t *testing.T) {
	s, err := Parse("; is: one\n; is: two\na = {x: uint, ? y: uint, c}\n\n; is: lost\n\nc = (z: uint // w: uint)\nd = a / {x: uint}")
	if err != nil {
		t.Fatal(err)
	}
	got := s.Keys("a")
	for k, opt := range map[string]bool{"x": false, "y": true, "z": true, "w": true} {
		if o, ok := got[k]; !ok || o != opt {
			t.Errorf("%s: %v %v", k, o, ok)
		}
	}
	if d := s.Keys("d"); d["x"] || !d["z"] || len(d) != 4 {
		t.Errorf("%v", d)
	}
	if s.Keys("nothing") != nil || len(s.Rules()) != 3 {
		t.Error("rules")
	}
	if says := s.Rules()[0].Says("is"); len(says) != 2 || says[1] != "two" {
		t.Errorf("%q", says)
	}
	if says := s.Rules()[1].Says("is"); len(says) != 0 {
		t.Errorf("%q", says)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"00", "a26178016179 02", "9b7fffffffffffffff", "bb7fffffffffffffff", "5bffffffffffffffff", "c0f6", "fb0000000000000000", "9f", "f820"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(v.Encode(nil))
		if err != nil || !again.Equal(v) || len(v.Encode(nil)) > len(b) || v.String() == "" {
			t.Errorf("%x: %v", b, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("a = {x: uint // * tstr => (b / h'00')}\nb = [1*2 c]\nc = (uint, ? tstr .size (1..2))", []byte{0xa0})
	f.Fuzz(func(t *testing.T, text string, b []byte) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		for _, r := range s.Rules() {
			_ = s.Match(r.Name, b)
			s.Keys(r.Name)
		}
	})
}

func TestRulesThatNeverEnd(t *testing.T) {
	for _, text := range []string{"a = a", "a = a / a", "a = (uint .size 1) / b\nb = a", "a = {c}\nc = (? c, ? c)", "a = [c]\nc = (* c)"} {
		s, err := Parse(text)
		if err != nil {
			continue
		}
		for _, b := range []string{"60", "a0", "80", "8160"} {
			_ = s.Match("a", unhex(t, b))
		}
		s.Keys("a")
	}
}
