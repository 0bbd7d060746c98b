package cddl

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The major types of RFC 8949 section 3.1.
const (
	majorUint = iota
	majorNegative
	majorBytes
	majorText
	majorArray
	majorMap
	majorTag
	majorSimple
)

// Simple values.
const (
	simpleFalse = 20
	simpleTrue  = 21
	simpleNull  = 22
)

// Value is one data item. Of a map the items are keys and values in turn.
type Value struct {
	Major byte
	N     uint64  // the argument: a number, a length, a count, a tag, a simple value
	Bytes []byte  // of a byte or text string
	Items []Value // of an array, a map, or what is tagged
}

const maxDepth = 32

var errEnd = errors.New("the item ends early")

// Decode decodes exactly one data item of definite lengths. It knows no floats.
func Decode(b []byte) (Value, error) {
	v, n, err := decode(b, 0)
	if err == nil && n != len(b) {
		err = fmt.Errorf("%d bytes after the item", len(b)-n)
	}
	return v, err
}

func decode(b []byte, depth int) (v Value, n int, err error) {
	if depth > maxDepth {
		return v, 0, errors.New("nested too deeply")
	}
	if len(b) == 0 {
		return v, 0, errEnd
	}
	v.Major, n = b[0]>>5, 1
	switch low := b[0] & 31; {
	case low < 24:
		v.N = uint64(low)
	case low > 27 || v.Major == majorSimple && low > 24:
		return v, 0, fmt.Errorf("an item that begins with %#x", b[0])
	default:
		size := 1 << (low - 24)
		if len(b) < 1+size {
			return v, 0, errEnd
		}
		for _, c := range b[1 : 1+size] {
			v.N = v.N<<8 | uint64(c)
		}
		n += size
	}
	count := uint64(0)
	switch v.Major {
	case majorBytes, majorText:
		if uint64(len(b)-n) < v.N {
			return v, 0, errEnd
		}
		v.Bytes = b[n : n+int(v.N)]
		return v, n + int(v.N), nil
	case majorArray:
		count = v.N
	case majorMap:
		if count = 2 * v.N; v.N > uint64(len(b)) {
			return v, 0, errEnd
		}
	case majorTag:
		count = 1
	}
	if count > uint64(len(b)) { // an item has at least one byte
		return v, 0, errEnd
	}
	for range count {
		item, m, err := decode(b[n:], depth+1)
		if err != nil {
			return v, 0, err
		}
		v.Items = append(v.Items, item)
		n += m
	}
	return v, n, nil
}

// Encode appends the item in its shortest form, maps in the order they have.
func (v Value) Encode(b []byte) []byte {
	n := v.N
	switch v.Major {
	case majorBytes, majorText:
		n = uint64(len(v.Bytes))
	case majorArray:
		n = uint64(len(v.Items))
	case majorMap:
		n = uint64(len(v.Items) / 2)
	}
	m := v.Major << 5
	switch {
	case n < 24:
		b = append(b, m|byte(n))
	case n < 1<<8:
		b = append(b, m|24, byte(n))
	case n < 1<<16:
		b = append(b, m|25, byte(n>>8), byte(n))
	case n < 1<<32:
		b = append(b, m|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	default:
		b = append(b, m|27, byte(n>>56), byte(n>>48), byte(n>>40), byte(n>>32), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	b = append(b, v.Bytes...)
	for _, i := range v.Items {
		b = i.Encode(b)
	}
	return b
}

// String returns the item in the diagnostic notation of RFC 8949 section 8.
func (v Value) String() string {
	switch v.Major {
	case majorUint:
		return strconv.FormatUint(v.N, 10)
	case majorNegative:
		if v.N == 1<<64-1 {
			return "-18446744073709551616"
		}
		return "-" + strconv.FormatUint(v.N+1, 10)
	case majorBytes:
		return "h'" + hex.EncodeToString(v.Bytes) + "'"
	case majorText:
		return strconv.Quote(string(v.Bytes))
	case majorTag:
		return fmt.Sprintf("%d(%s)", v.N, v.Items[0])
	case majorSimple:
		switch v.N {
		case simpleFalse:
			return "false"
		case simpleTrue:
			return "true"
		case simpleNull:
			return "null"
		}
		return fmt.Sprintf("simple(%d)", v.N)
	}
	var parts []string
	for i := 0; i < len(v.Items); i++ {
		if v.Major == majorMap {
			parts = append(parts, v.Items[i].String()+": "+v.Items[i+1].String())
			i++
			continue
		}
		parts = append(parts, v.Items[i].String())
	}
	if v.Major == majorMap {
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// Equal reports whether two items are the same; of maps the order counts.
func (v Value) Equal(w Value) bool { return string(v.Encode(nil)) == string(w.Encode(nil)) }

// Mutation is an item with one change that no rule of an object should take.
type Mutation struct {
	What  string
	Lost  string // the key that is missing, or "#" for the last element
	Bytes []byte
}

// Mutations returns changes of a map or array: each pair or the last element left
// out, one added, each value of another type.
func Mutations(b []byte) (out []Mutation) {
	v, err := Decode(b)
	if err != nil || v.Major != majorMap && v.Major != majorArray {
		return nil
	}
	strange := Value{Major: majorArray, Items: []Value{{Major: majorArray, Items: []Value{{Major: majorSimple, N: simpleTrue}}}}}
	step := 1
	if v.Major == majorMap {
		step = 2
	}
	with := func(what, lost string, items ...Value) {
		w := v
		w.Items = items
		out = append(out, Mutation{What: what, Lost: lost, Bytes: w.Encode(nil)})
	}
	clone := func() []Value { return append([]Value(nil), v.Items...) }
	for i := 0; i < len(v.Items); i += step {
		changed := clone()
		changed[i+step-1] = strange
		with("another type at "+brief(v.Items[i]), "", changed...)
		if step == 2 {
			with("no "+brief(v.Items[i]), strings.Trim(v.Items[i].String(), `"`), append(clone()[:i], v.Items[i+2:]...)...)
		}
	}
	if step == 2 {
		with("a key too many", "", append(clone(), Value{Major: majorText, Bytes: []byte("zz_unknown")}, Value{})...)
		return out
	}
	with("an element too many", "", append(clone(), strange)...)
	if len(v.Items) > 0 {
		with("an element missing", "#", clone()[:len(v.Items)-1]...)
	}
	return out
}
