package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"fcp/node/api"
)

// source says where the newest answer came from.
func (a *app) source() api.Source {
	if a.answers == nil {
		return api.Source{Kind: api.FromFiles}
	}
	return a.answers.Source()
}

func schemaName(typ string) string { return "fcp.v1." + typ }

// formatFlag is the value of -o.
type formatFlag string

const (
	formatTable  formatFlag = "table"
	formatJSON   formatFlag = "json"
	formatNDJSON formatFlag = "ndjson"
	formatName   formatFlag = "name"
)

var formats = []string{string(formatTable), string(formatJSON), string(formatNDJSON), string(formatName)}

func (f *formatFlag) String() string   { return string(*f) }
func (f *formatFlag) Type() string     { return strings.Join(formats, "|") }
func (f *formatFlag) structured() bool { return *f == formatJSON || *f == formatNDJSON }

func (f *formatFlag) Set(s string) error {
	if !slices.Contains(formats, s) {
		return fmt.Errorf("one of %s", strings.Join(formats, ", "))
	}
	*f = formatFlag(s)
	return nil
}

// colorFlag is the value of --color.
type colorFlag string

var colors = []string{"auto", "always", "never"}

func (f *colorFlag) String() string { return string(*f) }
func (f *colorFlag) Type() string   { return strings.Join(colors, "|") }

func (f *colorFlag) Set(s string) error {
	if !slices.Contains(colors, s) {
		return fmt.Errorf("one of %s", strings.Join(colors, ", "))
	}
	*f = colorFlag(s)
	return nil
}

const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
)

// paint colours s when the stream is a terminal and nobody objects.
func (a *app) paint(tty bool, color, s string) string {
	switch a.flags.color {
	case "never":
		return s
	case "always":
	default:
		if v, ok := a.lookupEnv("NO_COLOR"); !tty || ok && v != "" {
			return s
		}
	}
	return "\x1b[" + color + "m" + s + "\x1b[0m"
}

// printable replaces what would end a TSV cell or steer a terminal: control and
// format characters, invalid UTF-8, and the backslash that escapes them.
func printable(s string) string {
	bad := func(r rune) bool { return r == '\\' || r == utf8.RuneError || !unicode.IsPrint(r) && r != ' ' }
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\\':
			b.WriteString(`\\`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\n':
			b.WriteString(`\n`)
		case !bad(r) || r == utf8.RuneError:
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
		i += n
	}
	return b.String()
}

func marshalJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}

func (a *app) printJSON(w io.Writer, v any) error {
	b, err := marshalJSON(v)
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	return err
}

// envelope puts schema, source and position in front of the fields of v, which
// must be a JSON object.
func (a *app) envelope(typ string, asOf uint64, v any) ([]byte, error) {
	b, err := marshalJSON(v)
	if err != nil {
		return nil, err
	}
	head := a.envelopeHead(typ, asOf)
	if len(b) > 2 {
		head += ","
	}
	return append([]byte(head), b[1:]...), nil
}

// behindView is a device whose newest writes an answer may lack, as JSON.
type behindView struct {
	Device string `json:"device"`
	AsOf   string `json:"as_of"`
}

// envelopeHead is a JSON object up to where its own fields begin. An answer that may
// lack what devices wrote that are away says so, and as of which time it is whole.
func (a *app) envelopeHead(typ string, asOf uint64) string {
	s := a.source()
	head := fmt.Sprintf(`{"schema":%q,"source":%q,"as_of":%d`, schemaName(typ), s.Kind, asOf)
	if len(s.Behind) == 0 {
		return head
	}
	var list []behindView
	for _, b := range s.Behind {
		list = append(list, behindView{b.Name, secondsText(b.AsOf)})
	}
	b, err := marshalJSON(list)
	if err != nil {
		return head // strings always marshal
	}
	return head + fmt.Sprintf(`,"as_of_time":%q,"behind":%s`, secondsText(s.AsOfTime()), b)
}

// answered tells on stderr where the answer came from; JSON has it inside.
func (a *app) answered(asOf uint64, notes ...string) {
	if a.flags.quiet || a.flags.format.structured() {
		return
	}
	line := fmt.Sprintf("%s, as of position %d", a.source(), asOf)
	if len(notes) > 0 {
		line += ", " + strings.Join(notes, ", ")
	}
	a.note("%s", line)
}

// noteView is a note as JSON.
type noteView struct {
	Schema  string `json:"schema"`
	Message string `json:"message"`
}

// note writes one line to stderr that is neither data nor a warning, as text or as JSON
// like errors.
func (a *app) note(format string, args ...any) {
	if a.flags.quiet {
		return
	}
	if a.flags.format.structured() {
		a.printJSON(a.stderr, noteView{schemaName("Note"), fmt.Sprintf(format, args...)})
		return
	}
	fmt.Fprintln(a.stderr, a.paint(a.stderrTTY, dim, printable(fmt.Sprintf(format, args...))))
}

// field is one line of a record in table form.
type field struct{ name, value string }

// record prints one thing: name is what -o name prints.
func (a *app) record(typ string, asOf uint64, v any, name string, fields ...field) error {
	switch a.flags.format {
	case formatJSON, formatNDJSON:
		b, err := a.envelope(typ, asOf, v)
		if err == nil {
			_, err = a.out.Write(append(b, '\n'))
		}
		return err
	case formatName:
		_, err := fmt.Fprintln(a.out, printable(name))
		return err
	}
	width := 0
	for _, f := range fields {
		width = max(width, len(f.name))
	}
	for _, f := range fields {
		var err error
		if a.stdoutTTY {
			_, err = fmt.Fprintf(a.out, "%s  %s\n", a.paint(true, bold, fmt.Sprintf("%-*s", width, f.name)), printable(f.value))
		} else {
			_, err = fmt.Fprintf(a.out, "%s\t%s\n", f.name, printable(f.value))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// answer is record, and says on stderr what the record is an answer of.
func (a *app) answer(typ string, asOf uint64, v any, name string, fields ...field) error {
	if err := a.record(typ, asOf, v, name, fields...); err != nil {
		return err
	}
	a.answered(asOf)
	return nil
}

// list prints things of one type, one after the other.
type list struct {
	a       *app
	typ     string
	asOf    uint64
	columns []string
	rows    [][]string // only on a terminal, where columns are aligned
	count   int
	live    bool // rows are shown as they come
}

func (a *app) list(typ string, asOf uint64, columns ...string) *list {
	return &list{a: a, typ: typ, asOf: asOf, columns: columns}
}

// add prints one item: name is what -o name prints, cells are its columns.
func (l *list) add(v any, name string, cells ...string) (err error) {
	l.count++
	switch l.a.flags.format {
	case formatJSON:
		err = l.addJSON(v)
	case formatNDJSON:
		var b []byte
		if b, err = l.a.envelope(l.typ, l.asOf, v); err == nil {
			_, err = l.a.out.Write(append(b, '\n'))
		}
	case formatName:
		_, err = fmt.Fprintln(l.a.out, printable(name))
	default:
		for i := range cells {
			cells[i] = printable(cells[i])
		}
		if l.a.stdoutTTY && !l.live {
			l.rows = append(l.rows, cells)
			return nil
		}
		_, err = fmt.Fprintln(l.a.out, strings.Join(cells, "\t"))
	}
	if err == nil && l.live {
		err = l.a.out.Flush()
	}
	return err
}

func (l *list) addJSON(v any) error {
	b, err := marshalJSON(v)
	if err != nil {
		return err
	}
	sep := ",\n"
	if l.count == 1 {
		sep = l.head()
	}
	_, err = l.a.out.WriteString(sep + string(b))
	return err
}

func (l *list) head() string {
	return l.a.envelopeHead(l.typ+"List", l.asOf) + ",\"items\":[\n"
}

// end ends the list and says on stderr what it was an answer of.
func (l *list) end(asOf uint64, notes ...string) error {
	if err := l.close(); err != nil {
		return err
	}
	l.a.answered(asOf, notes...)
	return nil
}

// close ends the list.
func (l *list) close() error {
	switch {
	case l.a.flags.format == formatJSON && l.count == 0:
		_, err := l.a.out.WriteString(strings.TrimSuffix(l.head(), "\n") + "]}\n")
		return err
	case l.a.flags.format == formatJSON:
		_, err := l.a.out.WriteString("\n]}\n")
		return err
	case len(l.rows) > 0:
		return l.align()
	}
	return nil
}

func (l *list) align() error {
	widths := make([]int, len(l.columns))
	for _, row := range append([][]string{l.columns}, l.rows...) {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	line := func(row []string) string {
		var b strings.Builder
		for i, c := range row {
			b.WriteString(c)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)+2))
			}
		}
		return b.String()
	}
	if _, err := fmt.Fprintln(l.a.out, l.a.paint(true, bold, line(l.columns))); err != nil {
		return err
	}
	for _, row := range l.rows {
		if _, err := fmt.Fprintln(l.a.out, line(row)); err != nil {
			return err
		}
	}
	return nil
}
