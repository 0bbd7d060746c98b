package cddl

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"unicode/utf8"
)

// Match checks that b is one data item of the type that a rule names.
func (s *Schema) Match(rule string, b []byte) error {
	r := s.rules[rule]
	if r == nil || r.typ == nil {
		return fmt.Errorf("there is no type %q", rule)
	}
	v, err := Decode(b)
	if err != nil {
		return fmt.Errorf("%s: %w", rule, err)
	}
	m := &matcher{s: s, steps: new(int)}
	if m.value(r.typ, v, rule) {
		return nil
	}
	return fmt.Errorf("%s: %s", m.path, m.why)
}

// Keys returns the text keys of a map rule: of each whether it may be absent.
// Keys of a group choice are together; one that is not in every choice may be
// absent. Nil for a rule that is no map.
func (s *Schema) Keys(rule string) map[string]bool {
	r := s.rules[rule]
	if r == nil {
		return nil
	}
	if m, ok := r.typ.(mapOf); ok {
		return s.groupKeys(m.g)
	}
	if c, ok := r.typ.(choice); ok { // of several maps
		var sets []map[string]bool
		for _, t := range c {
			switch t := t.(type) {
			case mapOf:
				sets = append(sets, s.groupKeys(t.g))
			case ref:
				if m, ok := s.mapRule(t.name); ok {
					sets = append(sets, s.groupKeys(m.g))
				}
			}
		}
		return join(sets)
	}
	return nil
}

func (s *Schema) mapRule(name string) (mapOf, bool) {
	r := s.rules[name]
	if r == nil {
		return mapOf{}, false
	}
	m, ok := r.typ.(mapOf)
	return m, ok
}

func (s *Schema) groupKeys(g *group) map[string]bool {
	var sets []map[string]bool
	for _, entries := range g.choices {
		set := map[string]bool{}
		for _, e := range entries {
			sub := e.sub
			if r, ok := e.val.(ref); ok && e.key == nil && s.rules[r.name] != nil {
				sub = s.rules[r.name].grp
			}
			if sub != nil {
				for k, opt := range s.groupKeys(sub) {
					set[k] = opt || e.min == 0
				}
			}
			if l, ok := e.key.(literal); ok && l.v.Major == majorText {
				set[string(l.v.Bytes)] = e.min == 0
			}
		}
		sets = append(sets, set)
	}
	return join(sets)
}

func join(sets []map[string]bool) map[string]bool {
	all := map[string]bool{}
	for _, s := range sets {
		for k, opt := range s {
			all[k] = all[k] || opt
		}
	}
	for k := range all {
		for _, s := range sets {
			if _, ok := s[k]; !ok {
				all[k] = true
			}
		}
	}
	return all
}

// matcher remembers the deepest place at which something did not fit.
type matcher struct {
	s         *Schema
	path, why string
	steps     *int
	depth     int
}

// Rules may refer to themselves without taking anything in.
const (
	maxSteps = 1 << 22
	maxCalls = 512
)

func (m *matcher) fail(path, format string, args ...any) bool {
	if len(path) >= len(m.path) {
		m.path, m.why = path, fmt.Sprintf(format, args...)
	}
	return false
}

func brief(v Value) string {
	if s := v.String(); len(s) > 60 {
		return s[:60] + "..."
	} else {
		return s
	}
}

func (m *matcher) value(t typ, v Value, path string) bool {
	*m.steps++
	m.depth++
	defer func() { m.depth-- }()
	if *m.steps > maxSteps || m.depth > maxCalls {
		return m.fail(path, "the rules do not come to an end")
	}
	switch t := t.(type) {
	case anything:
		return true
	case literal:
		return t.v.Equal(v) || m.fail(path, "%s is not %s", brief(v), t.v)
	case choice:
		for _, c := range t {
			if m.value(c, v, path) {
				return true
			}
		}
		return false
	case ref:
		if r := m.s.rules[t.name]; r != nil {
			return m.value(r.typ, v, path)
		}
		return prelude[t.name](v) || m.fail(path, "%s is no %s", brief(v), t.name)
	case span:
		return v.Major <= majorNegative && !less(v, t.lo) && (t.open && less(v, t.hi) || !t.open && !less(t.hi, v)) ||
			m.fail(path, "%s is not in %s to %s", brief(v), t.lo, t.hi)
	case control:
		return m.value(t.of, v, path) && m.control(t, v, path)
	case mapOf:
		if v.Major != majorMap {
			return m.fail(path, "%s is no map", brief(v))
		}
		used, ok := m.mapGroup(t.g, v, make([]bool, len(v.Items)/2), path)
		if !ok {
			return false
		}
		for i, u := range used {
			if !u {
				return m.fail(path, "the key %s is too many", brief(v.Items[2*i]))
			}
		}
		return true
	case arrayOf:
		if v.Major != majorArray {
			return m.fail(path, "%s is no array", brief(v))
		}
		n, ok := m.arrayGroup(t.g, v.Items, 0, path)
		return ok && (n == len(v.Items) || m.fail(path, "element %d is too many or does not fit", n))
	}
	panic(fmt.Sprintf("cddl: a type %T", t)) // only the parser makes them
}

// less orders integers.
func less(a, b Value) bool {
	switch {
	case a.Major != b.Major:
		return a.Major == majorNegative
	case a.Major == majorNegative:
		return a.N > b.N
	}
	return a.N < b.N
}

func (m *matcher) control(t control, v Value, path string) bool {
	lit, _ := t.arg.(literal)
	compare := func(ok func(int) bool) bool {
		c := cmp.Compare(v.N, lit.v.N)
		return v.Major == majorUint && ok(c) || m.fail(path, "%s is not .%s %s", brief(v), t.op, lit.v)
	}
	switch t.op {
	case "size":
		return m.size(t.arg, v, path)
	case "cbor":
		inner, err := Decode(v.Bytes)
		if v.Major != majorBytes || err != nil {
			return m.fail(path, "%s holds no CBOR item", brief(v))
		}
		return m.value(t.arg, inner, path+"<cbor>")
	case "regexp":
		re, err := regexp.Compile("^(?:" + string(lit.v.Bytes) + ")$")
		return err == nil && v.Major == majorText && re.Match(v.Bytes) || m.fail(path, "%s does not match %s", brief(v), lit.v)
	case "lt":
		return compare(func(c int) bool { return c < 0 })
	case "le":
		return compare(func(c int) bool { return c <= 0 })
	case "gt":
		return compare(func(c int) bool { return c > 0 })
	case "ge":
		return compare(func(c int) bool { return c >= 0 })
	case "eq":
		return lit.v.Equal(v) || m.fail(path, "%s is not %s", brief(v), lit.v)
	case "ne":
		return !lit.v.Equal(v) || m.fail(path, "it is %s", lit.v)
	}
	return m.value(t.arg, v, path) // within
}

// size: the bytes of a string, or the bytes that an unsigned integer fits.
func (m *matcher) size(arg typ, v Value, path string) bool {
	if v.Major == majorUint {
		l, ok := arg.(literal)
		return ok && (l.v.N >= 8 || v.N>>(8*l.v.N) == 0) || m.fail(path, "%s does not fit the size", brief(v))
	}
	n := Value{N: uint64(len(v.Bytes))}
	if v.Major != majorBytes && v.Major != majorText {
		return m.fail(path, "%s has no size", brief(v))
	}
	return m.value(arg, n, path+"<size>")
}

// arrayGroup matches a group against the elements from i and returns where it ended.
func (m *matcher) arrayGroup(g *group, items []Value, i int, path string) (int, bool) {
	for _, entries := range g.choices {
		n, ok := i, true
		for _, e := range entries {
			if n, ok = m.arrayEntry(e, items, n, path); !ok {
				break
			}
		}
		if ok {
			return n, true
		}
	}
	return i, false
}

func (m *matcher) arrayEntry(e entry, items []Value, i int, path string) (int, bool) {
	sub := m.subgroup(e)
	for count := uint64(0); count < e.max; count++ {
		n, ok := i, false
		if sub != nil {
			n, ok = m.arrayGroup(sub, items, i, path)
		} else if i < len(items) {
			ok = m.value(e.val, items[i], fmt.Sprintf("%s[%d]", path, i))
			n = i + 1
		}
		if !ok || n == i {
			if count < e.min {
				return i, ok || m.fail(path, "element %d is missing or does not fit", i)
			}
			return i, true
		}
		i = n
	}
	return i, true
}

// subgroup returns the group that an entry without a key stands for, if any.
func (m *matcher) subgroup(e entry) *group {
	if e.sub != nil {
		return e.sub
	}
	if r, ok := e.val.(ref); ok && e.key == nil && m.s.rules[r.name] != nil {
		return m.s.rules[r.name].grp
	}
	return nil
}

// mapGroup matches a group against the pairs that are not used yet.
func (m *matcher) mapGroup(g *group, v Value, used []bool, path string) ([]bool, bool) {
	for _, entries := range g.choices {
		now, ok := slices.Clone(used), true
		for _, e := range entries {
			if now, ok = m.mapEntry(e, v, now, path); !ok {
				break
			}
		}
		if ok {
			return now, true
		}
	}
	return used, false
}

func (m *matcher) mapEntry(e entry, v Value, used []bool, path string) ([]bool, bool) {
	sub := m.subgroup(e)
	for count := uint64(0); count < e.max; count++ {
		var ok, cut bool
		before := used
		if sub != nil {
			used, ok = m.mapGroup(sub, v, used, path)
			ok = ok && !slices.Equal(before, used)
		} else {
			used, ok, cut = m.mapPair(e, v, used, path)
		}
		if !ok {
			return before, !cut && (count >= e.min || m.failMissing(e, path))
		}
	}
	return used, true
}

func (m *matcher) failMissing(e entry, path string) bool {
	if l, ok := e.key.(literal); ok {
		return m.fail(path, "the key %s is missing", l.v)
	}
	return m.fail(path, "a pair is missing")
}

// mapPair uses up one pair that fits. It is cut when a pair has the key and not
// the value, and the entry forbids to look further (RFC 8610 section 3.5.4).
func (m *matcher) mapPair(e entry, v Value, used []bool, path string) (_ []bool, ok, cut bool) {
	for i, u := range used {
		key := v.Items[2*i]
		if u || e.key == nil || !(&matcher{s: m.s, steps: m.steps, depth: m.depth}).value(e.key, key, path) {
			continue
		}
		if m.value(e.val, v.Items[2*i+1], path+"."+brief(key)) {
			used = slices.Clone(used)
			used[i] = true
			return used, true, false
		}
		if e.cut {
			return used, false, true
		}
	}
	return used, false, false
}

// prelude is the part of RFC 8610 appendix D that has no floats and no tags.
var prelude = map[string]func(Value) bool{
	"any":   func(Value) bool { return true },
	"uint":  func(v Value) bool { return v.Major == majorUint },
	"nint":  func(v Value) bool { return v.Major == majorNegative },
	"int":   func(v Value) bool { return v.Major <= majorNegative },
	"bstr":  func(v Value) bool { return v.Major == majorBytes },
	"bytes": func(v Value) bool { return v.Major == majorBytes },
	"tstr":  func(v Value) bool { return v.Major == majorText && utf8.Valid(v.Bytes) },
	"text":  func(v Value) bool { return v.Major == majorText && utf8.Valid(v.Bytes) },
	"bool":  func(v Value) bool { return v.Major == majorSimple && (v.N == simpleFalse || v.N == simpleTrue) },
	"true":  func(v Value) bool { return v.Major == majorSimple && v.N == simpleTrue },
	"false": func(v Value) bool { return v.Major == majorSimple && v.N == simpleFalse },
	"nil":   func(v Value) bool { return v.Major == majorSimple && v.N == simpleNull },
	"null":  func(v Value) bool { return v.Major == majorSimple && v.N == simpleNull },
}

// resolve checks that every name is a rule or of the prelude, and every control
// has an argument it can use.
func (s *Schema) resolve() error {
	for _, r := range s.order {
		err := s.resolveType(r.typ, false)
		if r.grp != nil {
			err = s.resolveGroup(r.grp)
		}
		if err != nil {
			return fmt.Errorf("rule %s: %w", r.Name, err)
		}
		if prelude[r.Name] != nil {
			return fmt.Errorf("rule %s hides the prelude's", r.Name)
		}
	}
	return nil
}

// resolveType takes a name of a group only where a group may stand.
func (s *Schema) resolveType(t typ, inGroup bool) error {
	switch t := t.(type) {
	case choice:
		for _, c := range t {
			if err := s.resolveType(c, false); err != nil {
				return err
			}
		}
	case ref:
		if r := s.rules[t.name]; r == nil && prelude[t.name] == nil || r != nil && r.typ == nil && !inGroup {
			return fmt.Errorf("%s is no type", t.name)
		}
	case control:
		if l, ok := t.arg.(literal); t.op != "size" && t.op != "cbor" && t.op != "within" && !ok || t.op == "regexp" && l.v.Major != majorText {
			return fmt.Errorf(".%s needs a literal", t.op)
		}
		if l, ok := t.arg.(literal); ok && t.op == "regexp" {
			if _, err := regexp.Compile(string(l.v.Bytes)); err != nil {
				return err
			}
		}
		if err := s.resolveType(t.of, false); err != nil {
			return err
		}
		return s.resolveType(t.arg, false)
	case mapOf:
		return s.resolveGroup(t.g)
	case arrayOf:
		return s.resolveGroup(t.g)
	}
	return nil
}

// endless reports whether a group holds itself.
func (s *Schema) endless(g *group, seen map[*group]bool) bool {
	if seen[g] {
		return true
	}
	seen[g] = true
	defer delete(seen, g)
	for _, entries := range g.choices {
		for _, e := range entries {
			if sub := (&matcher{s: s}).subgroup(e); sub != nil && s.endless(sub, seen) {
				return true
			}
		}
	}
	return false
}

func (s *Schema) resolveGroup(g *group) error {
	if s.endless(g, map[*group]bool{}) {
		return fmt.Errorf("a group that holds itself")
	}
	for _, entries := range g.choices {
		for _, e := range entries {
			if e.sub != nil {
				if err := s.resolveGroup(e.sub); err != nil {
					return err
				}
				continue
			}
			if err := s.resolveType(e.key, false); err != nil {
				return err
			}
			if err := s.resolveType(e.val, e.key == nil); err != nil {
				return err
			}
		}
	}
	return nil
}
