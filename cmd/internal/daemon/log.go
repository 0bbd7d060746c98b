package daemon

import (
	"io"
	"log/slog"
	"strings"
)

// newLogger logs JSON, one object a line. What is called like a secret is left out,
// and what is long is cut: no line of the code logs a key or a payload, and if one
// ever does it does not get far.
func newLogger(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: redact}))
}

const maxLogged = 2048 // bytes of one value

var secretWords = []string{"secret", "passphrase", "password", "private", "token", "seed", "body", "payload"}

func redact(_ []string, a slog.Attr) slog.Attr {
	name := strings.ToLower(a.Key)
	for _, w := range secretWords {
		if strings.Contains(name, w) {
			return slog.String(a.Key, "(redacted)")
		}
	}
	switch a.Value.Kind() {
	case slog.KindString:
		if s := a.Value.String(); len(s) > maxLogged {
			return slog.String(a.Key, s[:maxLogged]+"...")
		}
	case slog.KindAny:
		if b, ok := a.Value.Any().([]byte); ok {
			return slog.Int(a.Key+"_bytes", len(b))
		}
	}
	return a
}
