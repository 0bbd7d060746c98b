package vectors

import (
	"encoding/hex"
	"fmt"
	"strings"

	"fcp"
	"fcp/internal/cddl"
)

// maxShown is how many bytes of one string or part an annotation shows.
const maxShown = 40

// annotate explains the input: each line is hex, " -- " and what those bytes are.
func (c *Case) annotate() []string {
	if !c.CBOR {
		return annotateParts(c.Input, c.parts)
	}
	var out []string
	b := c.Input
	for _, s := range knownSchemas {
		if h := s.Hash(); len(b) > fcp.HashSize && fcp.Hash(b[:fcp.HashSize]) == h {
			out = append(out, hex.EncodeToString(h[:])+" -- hash of schema "+s.String())
			b = b[fcp.HashSize:]
		}
	}
	v, err := cddl.Decode(b)
	if err != nil {
		return append(out, shown(b)+" -- no CBOR item: "+err.Error())
	}
	return append(out, annotateItem(v, 0)...)
}

func shown(b []byte) string {
	if len(b) <= maxShown {
		return hex.EncodeToString(b)
	}
	return fmt.Sprintf("%x... (%d bytes)", b[:maxShown], len(b))
}

func annotateParts(b []byte, parts []part) (out []string) {
	for _, p := range parts {
		out = append(out, shown(b[:p.n])+" -- "+p.what)
		b = b[p.n:]
	}
	if len(b) > 0 {
		what := "content"
		if len(parts) > 0 {
			what = "the rest"
		}
		out = append(out, shown(b)+" -- "+what)
	}
	return out
}

// annotateItem shows the heads that the item has in its shortest form; one that is
// not canonical is shown as what it means.
func annotateItem(v cddl.Value, depth int) (out []string) {
	indent := strings.Repeat(" ", depth)
	line := func(format string, args ...any) { out = append(out, indent+fmt.Sprintf(format, args...)) }
	switch v.Major {
	case 4, 5:
		head := cddl.Value{Major: v.Major}
		head.Items = v.Items
		enc := head.Encode(nil)
		n := 1
		if low := enc[0] & 31; low >= 24 {
			n += 1 << (low - 24)
		}
		if v.Major == 5 {
			line("%x -- map of %d", enc[:n], len(v.Items)/2)
		} else {
			line("%x -- array of %d", enc[:n], len(v.Items))
		}
		for i, item := range v.Items {
			d := depth + 1
			if v.Major == 5 && i%2 == 1 {
				d++
			}
			out = append(out, annotateItem(item, d)...)
		}
	default:
		if v.Major == 2 && len(v.Bytes) > 20 {
			if inner, err := cddl.Decode(v.Bytes); err == nil && (inner.Major == 4 || inner.Major == 5) {
				enc := v.Encode(nil)
				line("%x -- string of %d bytes, which hold", enc[:len(enc)-len(v.Bytes)], len(v.Bytes))
				return append(out, annotateItem(inner, depth+1)...)
			}
		}
		text := v.String()
		if len(text) > 2*maxShown {
			text = fmt.Sprintf("%s... (%d bytes)", text[:2*maxShown], len(v.Bytes))
		}
		line("%s -- %s", shown(v.Encode(nil)), text)
	}
	return out
}
