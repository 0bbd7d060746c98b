package conformance

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"fcp/conformance/internal/respond"
)

// responderVariable makes the test binary a responder: "right", or the name of a
// way to be wrong.
const responderVariable = "FCP_CONFORMANCE_RESPONDER"

func TestMain(m *testing.M) {
	mode := os.Getenv(responderVariable)
	if mode == "" {
		os.Exit(m.Run())
	}
	if mode == "right" {
		if err := respond.Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	serveWrongly(mode)
}

// serveWrongly answers as the product does, and every third request wrongly.
func serveWrongly(mode string) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, respond.MaxLine)
	for n := 1; lines.Scan(); n++ {
		var r respond.Request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			os.Exit(1)
		}
		a := respond.Answer(r)
		if n%3 == 0 || wrongNow(mode, a) {
			if text, done := wrongly(mode, &a); done {
				fmt.Print(text)
				continue
			}
		}
		b, err := json.Marshal(a)
		if err != nil {
			os.Exit(1)
		}
		fmt.Println(string(b))
	}
}

// wrongNow picks the answers that a mode changes whatever their number.
func wrongNow(mode string, a respond.Response) bool {
	return mode == "accepts" && !a.OK || mode == "refuses" && a.OK || mode == "other code" && !a.OK || mode == "other output" && a.OK
}

// wrongly changes an answer, or gives text in its place.
func wrongly(mode string, a *respond.Response) (text string, done bool) {
	switch mode {
	case "accepts":
		*a = respond.Response{ID: a.ID, OK: true, Output: a.Output}
	case "refuses":
		if a.OK {
			*a = respond.Response{ID: a.ID, Error: "FCP-1002"}
		}
	case "other code":
		if !a.OK {
			a.Error = "FCP-9001"
		}
	case "other output":
		if a.OK {
			a.Output += "00"
		}
	case "both":
		a.OK, a.Error = true, "FCP-1002"
	case "unsupported":
		*a = respond.Response{ID: a.ID, Unsupported: true}
	case "other id":
		a.ID++
	case "two lines":
		return "hello\n", true
	case "garbage":
		return strings.Repeat("x", 100) + "\n", true
	case "silent":
		return "", true
	case "hangs":
		time.Sleep(time.Hour)
	case "ends":
		fmt.Fprintln(os.Stderr, "no more")
		os.Exit(3)
	}
	return "", false
}
