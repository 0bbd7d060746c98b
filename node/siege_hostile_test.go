package node

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"fcp"
	"fcp/engine"
)

// hostiles is what the process of the hostile peers is told.
type hostiles struct {
	Segment   []byte
	Honest    [][]byte
	Targets   []string // addresses of the honest nodes
	Members   []hostile
	Outsiders int
}

// hostile is an enrolled member that misbehaves.
type hostile struct {
	Dir         string
	Enrollment  []byte
	Index, Kind int
}

// hostileProcess is the process of the hostile peers, seen from the test.
type hostileProcess struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	said chan string
}

const hostileEnv = "FCP_HOSTILE_PEERS"

func startHostiles(t *testing.T, h *hostiles) *hostileProcess {
	t.Helper()
	told, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	p := &hostileProcess{t: t, cmd: exec.Command(os.Args[0], "-test.run", "^TestHostilePeers$"), said: make(chan string, 64)}
	p.cmd.Env = append(os.Environ(), hostileEnv+"=1")
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.in.Close() // it ends when nobody is left to tell it anything
		_ = p.cmd.Wait()
	})
	go func() {
		defer close(p.said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.said <- lines.Text()
		}
	}()
	p.tell(string(told))
	return p
}

func (p *hostileProcess) tell(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

// expects waits for a line that begins with a word and returns the rest of it.
func (p *hostileProcess) expects(word string) string {
	p.t.Helper()
	patience := time.After(2 * time.Minute)
	for {
		select {
		case line, ok := <-p.said:
			if !ok {
				p.t.Fatalf("the hostile peers ended before they said %s", word)
			}
			if rest, ok := strings.CutPrefix(line, word); ok {
				return strings.TrimSpace(rest)
			}
			p.t.Log("the hostile peers:", line)
		case <-patience:
			p.t.Fatalf("the hostile peers do not say %s", word)
		}
	}
}

// end returns how often they acted.
func (p *hostileProcess) end() int {
	p.t.Helper()
	p.tell("end")
	n, err := strconv.Atoi(p.expects("acted"))
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// TestHostilePeers is the process of the hostile peers of TestSiege.
func TestHostilePeers(t *testing.T) {
	if os.Getenv(hostileEnv) == "" {
		t.Skip("a part of TestSiege")
	}
	told := bufio.NewScanner(os.Stdin)
	told.Buffer(nil, 1<<20)
	hears := func() string {
		if !told.Scan() {
			os.Exit(1) // nobody is left
		}
		return told.Text()
	}
	var h hostiles
	if err := json.Unmarshal([]byte(hears()), &h); err != nil {
		t.Fatal(err)
	}
	pinHalf(t, 1)
	segment := fcp.SegmentID(h.Segment)
	s := &siege{mesh: &mesh{t: t}}
	for _, id := range h.Honest {
		s.honest = append(s.honest, fcp.WriterID(id))
	}
	for _, a := range h.Targets {
		to, err := net.ResolveUDPAddr("udp", a)
		if err != nil {
			t.Fatal(err)
		}
		s.target = append(s.target, to)
	}
	late := func(m *hostile) bool { return m.Kind == kindFuture || m.Kind == kindPutBack }
	begin := func(i int) {
		x, env := s.nodes[i], engine.Environment{}
		if h.Members[i].Kind == kindFuture {
			env.Now = func() time.Time { return time.Now().Add(365 * 24 * time.Hour) }
		}
		var err error
		if x.e, err = engine.Open(context.Background(), x.dir, engine.Options{NoBallast: true, Environment: env}); err != nil {
			t.Fatal(err)
		}
		s.start(x)
	}
	there := func(i int) {
		if err := s.nodes[i].n.WaitPeers(within(t, time.Minute), len(h.Honest)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range h.Members {
		m := &h.Members[i]
		s.nodes = append(s.nodes, &member{dir: m.Dir, opt: Options{Enrollment: m.Enrollment, Peers: h.Targets[:1], Logger: logger().With("node", m.Index+1)}})
		if !late(m) {
			begin(i)
		}
	}
	for i := range h.Members {
		if !late(&h.Members[i]) {
			there(i)
		}
	}
	fmt.Println("ready")
	hears()
	var stop context.CancelFunc
	s.ctx, stop = context.WithCancel(context.Background())
	for i := range h.Members {
		m := &h.Members[i]
		if late(m) {
			begin(i)
		}
		rem, err := s.nodes[i].n.remainder(segment)
		if err != nil || rem == nil {
			t.Fatal("the segment is not known here: ", err)
		}
		s.member(i, m.Kind, segment, rem)
	}
	for i := range h.Outsiders {
		s.outsider(i)
	}
	fmt.Println("begun")
	hears()
	stop()
	s.work.Wait()
	fmt.Println("acted", s.sent.Load())
	s.close()
}
