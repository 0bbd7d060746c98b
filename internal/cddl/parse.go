package cddl

import (
	"fmt"
	"strings"
)

// Schema is a set of rules.
type Schema struct {
	rules map[string]*Rule
	order []*Rule
}

// Rule is one named type or group.
type Rule struct {
	Name string
	Doc  []string // the comment lines directly above it
	typ  typ      // nil for a group
	grp  *group
}

// Rules returns the rules in the order they were read.
func (s *Schema) Rules() []*Rule { return s.order }

// Says returns what the lines "label: text" of the rule's comment say.
func (r *Rule) Says(label string) (out []string) {
	for _, d := range r.Doc {
		if text, ok := strings.CutPrefix(d, label+": "); ok {
			out = append(out, strings.TrimSpace(text))
		}
	}
	return out
}

// The syntax tree. A typ matches one value, a group a run of array elements or
// map pairs.
type (
	typ interface{}

	choice  []typ
	literal struct{ v Value }
	ref     struct{ name string }
	span    struct {
		lo, hi Value
		open   bool
	}
	control struct {
		op      string
		of, arg typ
	}
	mapOf    struct{ g *group }
	arrayOf  struct{ g *group }
	anything struct{}

	group struct{ choices [][]entry }
	entry struct {
		min, max uint64
		key      typ // nil: none
		cut      bool
		val      typ    // nil when sub is a group
		sub      *group // an inline group
	}
)

const unbounded = 1<<64 - 1

type parser struct {
	toks  []token
	i     int
	depth int
}

// maxNesting bounds parentheses and brackets: what may be a group or a type is
// read twice.
const maxNesting = 24

// Parse reads rules. Every name that is used must be a rule or of the prelude.
func Parse(texts ...string) (*Schema, error) {
	s := &Schema{rules: map[string]*Rule{}}
	for _, text := range texts {
		toks, comments, err := scan(text)
		if err != nil {
			return nil, err
		}
		p := &parser{toks: toks}
		for p.peek().kind != tokEnd {
			line := p.peek().line
			r, op, err := p.rule()
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", p.peek().line, err)
			}
			for l := line - 1; comments[l] != ""; l-- {
				r.Doc = append([]string{comments[l]}, r.Doc...)
			}
			if err := s.add(r, op); err != nil {
				return nil, err
			}
		}
	}
	return s, s.resolve()
}

func (s *Schema) add(r *Rule, op string) error {
	old := s.rules[r.Name]
	switch {
	case old == nil && op == "=":
		s.rules[r.Name] = r
		s.order = append(s.order, r)
	case old != nil && op == "/=" && old.typ != nil && r.typ != nil:
		old.typ = choice{old.typ, r.typ}
	case old != nil && op == "//=" && old.grp != nil && r.grp != nil:
		old.grp.choices = append(old.grp.choices, r.grp.choices...)
	default:
		return fmt.Errorf("rule %s: %s does not fit what is there", r.Name, op)
	}
	return nil
}

func (p *parser) peek() token { return p.toks[min(p.i, len(p.toks)-1)] }

func (p *parser) is(punct string) bool { return p.peek().kind == tokPunct && p.peek().text == punct }

func (p *parser) take(punct string) bool {
	if p.is(punct) {
		p.i++
		return true
	}
	return false
}

func (p *parser) want(punct string) error {
	if !p.take(punct) {
		return fmt.Errorf("%q is missing, there is %q", punct, p.peek().text)
	}
	return nil
}

func (p *parser) rule() (*Rule, string, error) {
	t := p.peek()
	if t.kind != tokName {
		return nil, "", fmt.Errorf("a rule begins with a name, not %q", t.text)
	}
	p.i++
	op := p.peek().text
	if !p.take("=") && !p.take("/=") && !p.take("//=") {
		return nil, "", fmt.Errorf("rule %s has no =", t.text)
	}
	r := &Rule{Name: t.text}
	var err error
	// A parenthesis may begin a group or a type: what reads to the next rule is right.
	if p.is("(") {
		start := p.i
		p.i++
		if g, e := p.group(")"); e == nil && p.take(")") && p.ruleStarts() && (op == "//=" || !plainType(g)) {
			r.grp = g
			return r, op, nil
		}
		p.i = start
	}
	if r.typ, err = p.types(); err == nil && !p.ruleStarts() {
		err = fmt.Errorf("rule %s: unexpected %q", r.Name, p.peek().text)
	}
	return r, op, err
}

// plainType reports whether a parenthesised group is just a type.
func plainType(g *group) bool {
	return len(g.choices) == 1 && len(g.choices[0]) == 1 && g.choices[0][0].key == nil && g.choices[0][0].sub == nil &&
		g.choices[0][0].min == 1 && g.choices[0][0].max == 1
}

// ruleStarts reports whether a rule or the end stands here.
func (p *parser) ruleStarts() bool {
	if p.peek().kind == tokEnd {
		return true
	}
	if p.peek().kind != tokName || p.i+1 >= len(p.toks) || p.toks[p.i+1].kind != tokPunct {
		return false
	}
	op := p.toks[p.i+1].text
	return op == "=" || op == "/=" || op == "//="
}

// types reads type1 / type1 / ...
func (p *parser) types() (typ, error) {
	if p.depth++; p.depth > maxNesting {
		return nil, fmt.Errorf("nested too deeply")
	}
	defer func() { p.depth-- }()
	var c choice
	for {
		t, err := p.type1()
		if err != nil {
			return nil, err
		}
		c = append(c, t)
		if !p.take("/") {
			break
		}
	}
	if len(c) == 1 {
		return c[0], nil
	}
	return c, nil
}

// type1 reads a type with its range or control.
func (p *parser) type1() (typ, error) {
	t, err := p.type2()
	if err != nil {
		return nil, err
	}
	if open := p.is("..."); open || p.is("..") {
		p.i++
		hi, err := p.type2()
		if err != nil {
			return nil, err
		}
		lo, ok1 := t.(literal)
		up, ok2 := hi.(literal)
		if !ok1 || !ok2 || lo.v.Major > majorNegative || up.v.Major > majorNegative {
			return nil, fmt.Errorf("a range needs two integers")
		}
		return span{lo.v, up.v, open}, nil
	}
	for p.peek().kind == tokControl {
		op := p.peek().text
		if !controls[op] {
			return nil, fmt.Errorf("control .%s is not implemented", op)
		}
		p.i++
		arg, err := p.type2()
		if err != nil {
			return nil, err
		}
		t = control{op, t, arg}
	}
	return t, nil
}

var controls = map[string]bool{"size": true, "cbor": true, "regexp": true, "lt": true, "le": true, "gt": true, "ge": true, "eq": true, "ne": true, "within": true}

func (p *parser) type2() (typ, error) {
	t := p.peek()
	p.i++
	switch {
	case t.kind == tokValue:
		return literal{t.val}, nil
	case t.kind == tokName:
		if p.is("<") {
			return nil, fmt.Errorf("generics are not implemented")
		}
		return ref{t.text}, nil
	case t.kind == tokPunct && t.text == "(":
		x, err := p.types()
		if err == nil {
			err = p.want(")")
		}
		return x, err
	case t.kind == tokPunct && (t.text == "{" || t.text == "["):
		end := map[string]string{"{": "}", "[": "]"}[t.text]
		g, err := p.group(end)
		if err == nil {
			err = p.want(end)
		}
		if t.text == "{" {
			return mapOf{g}, err
		}
		return arrayOf{g}, err
	case t.kind == tokPunct && t.text == "#" && p.peek().kind != tokValue:
		return anything{}, nil
	}
	return nil, fmt.Errorf("a type is missing, there is %q", t.text)
}

// group reads entries up to end, which stays.
func (p *parser) group(end string) (*group, error) {
	g := &group{choices: [][]entry{nil}}
	for !p.is(end) {
		if p.take("//") {
			g.choices = append(g.choices, nil)
			continue
		}
		e, err := p.entry()
		if err != nil {
			return nil, err
		}
		last := len(g.choices) - 1
		g.choices[last] = append(g.choices[last], e)
		p.take(",")
	}
	return g, nil
}

func (p *parser) entry() (entry, error) {
	e := entry{min: 1, max: 1}
	p.occurrence(&e)
	if t := p.peek(); t.bare {
		p.i += 2
		e.cut = true
		e.key = literal{t.val}
		if t.kind == tokName {
			e.key = literal{Value{Major: majorText, N: uint64(len(t.text)), Bytes: []byte(t.text)}}
		}
		v, err := p.types()
		e.val = v
		return e, err
	}
	if p.is("(") { // a group, unless it is a type with a key or control behind it
		start := p.i
		p.i++
		if g, err := p.group(")"); err == nil && p.take(")") && !p.is("=>") && !p.is("^") && !p.is("/") && p.peek().kind != tokControl && !plainType(g) {
			e.sub = g
			return e, nil
		}
		p.i = start
	}
	t, err := p.types()
	if err != nil {
		return e, err
	}
	e.cut = p.take("^")
	if !p.take("=>") {
		e.val = t
		return e, nil
	}
	e.key = t
	e.val, err = p.types()
	return e, err
}

// occurrence reads ?, +, *, n*, *m or n*m.
func (p *parser) occurrence(e *entry) {
	switch {
	case p.take("?"):
		e.min = 0
	case p.take("+"):
		e.max = unbounded
	default:
		number := func() (uint64, bool) {
			if t := p.peek(); t.kind == tokValue && t.val.Major == majorUint {
				return t.val.N, true
			}
			return 0, false
		}
		lo, ok := number()
		if ok && (p.i+1 >= len(p.toks) || p.toks[p.i+1].text != "*" || p.toks[p.i+1].kind != tokPunct) {
			return
		}
		if ok {
			p.i++
		}
		if !p.take("*") {
			return
		}
		e.min, e.max = lo, unbounded
		// "* 5" with a space is zero or more fives; the files here never say that.
		if hi, ok := number(); ok && !p.peek().bare {
			p.i++
			e.max = hi
		}
	}
}
