package cddl

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// token is one word of the language.
type token struct {
	kind tokenKind
	text string // an identifier, a control without its dot, punctuation, or the comments before an end of line
	val  Value  // of a literal
	line int
	bare bool // an identifier or literal directly followed by ":"
}

type tokenKind uint8

const (
	tokEnd tokenKind = iota
	tokName
	tokValue
	tokControl
	tokPunct
)

// scan splits the text into tokens and collects, per line, the comment on it.
func scan(text string) (out []token, comments map[int]string, err error) {
	comments = map[int]string{}
	line, i := 1, 0
	for i < len(text) {
		c := text[i]
		switch {
		case c == '\n':
			line++
			i++
		case c == ' ' || c == '\t' || c == '\r':
			i++
		case c == ';':
			end := i + strings.IndexByte(text[i:]+"\n", '\n')
			comments[line] = strings.TrimSpace(text[i+1 : end])
			i = end
		default:
			t, n, err := scanToken(text[i:])
			if err != nil {
				return nil, nil, fmt.Errorf("line %d: %w", line, err)
			}
			t.line = line
			i += n
			t.bare = t.kind != tokPunct && i < len(text) && text[i] == ':'
			out = append(out, t)
		}
	}
	return append(out, token{kind: tokEnd, line: line}), comments, nil
}

func letter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c == '@' || c == '$'
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

var punctuation = []string{"//=", "...", "//", "/=", "=>", "..", "=", "/", "{", "}", "[", "]", "(", ")", ",", ":", "^", "?", "*", "+", "#", "<", ">", "&", "~"}

// scanToken reads the token at the start of s and returns its length.
func scanToken(s string) (token, int, error) {
	c := s[0]
	switch {
	case c == 'h' && strings.HasPrefix(s, "h'"):
		end := strings.IndexByte(s[2:], '\'')
		if end < 0 {
			return token{}, 0, fmt.Errorf("a byte string without an end")
		}
		b, err := hex.DecodeString(s[2 : 2+end])
		if err != nil {
			return token{}, 0, fmt.Errorf("byte string: %w", err)
		}
		return token{kind: tokValue, val: Value{Major: majorBytes, N: uint64(len(b)), Bytes: b}}, end + 3, nil
	case c == '\'':
		end := strings.IndexByte(s[1:], '\'')
		if end < 0 {
			return token{}, 0, fmt.Errorf("a byte string without an end")
		}
		return token{kind: tokValue, val: Value{Major: majorBytes, N: uint64(end), Bytes: []byte(s[1 : 1+end])}}, end + 2, nil
	case letter(c):
		n := name(s)
		return token{kind: tokName, text: s[:n]}, n, nil
	case c == '"':
		end := strings.IndexByte(s[1:], '"')
		if end < 0 || strings.ContainsAny(s[1:1+end], "\n") {
			return token{}, 0, fmt.Errorf("a text without an end")
		}
		b := []byte(strings.ReplaceAll(s[1:1+end], `\\`, `\`))
		return token{kind: tokValue, val: Value{Major: majorText, N: uint64(len(b)), Bytes: b}}, end + 2, nil
	case digit(c) || c == '-' && len(s) > 1 && digit(s[1]):
		n := 1
		for n < len(s) && (digit(s[n]) || s[n] == 'x' || 'a' <= s[n] && s[n] <= 'f' || 'A' <= s[n] && s[n] <= 'F') {
			n++
		}
		x, err := strconv.ParseUint(strings.TrimPrefix(s[:n], "-"), 0, 64)
		if err != nil {
			return token{}, 0, err
		}
		if c == '-' {
			return token{kind: tokValue, val: Value{Major: majorNegative, N: x - 1}}, n, nil
		}
		return token{kind: tokValue, val: Value{N: x}}, n, nil
	case c == '.' && len(s) > 1 && letter(s[1]):
		n := 1 + name(s[1:])
		return token{kind: tokControl, text: s[1:n]}, n, nil
	}
	for _, p := range punctuation {
		if strings.HasPrefix(s, p) {
			return token{kind: tokPunct, text: p}, len(p), nil
		}
	}
	return token{}, 0, fmt.Errorf("unexpected %q", c)
}

// name returns the length of the identifier at the start of s: it may hold dots
// and hyphens and ends in neither.
func name(s string) int {
	n := 0
	for i := 0; i < len(s) && (letter(s[i]) || digit(s[i]) || s[i] == '-' || s[i] == '.'); i++ {
		if s[i] == '.' && i+1 < len(s) && s[i+1] == '.' {
			break
		}
		if s[i] != '-' && s[i] != '.' {
			n = i + 1
		}
	}
	return n
}
