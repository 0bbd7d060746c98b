package daemon

import (
	"reflect"
	"testing"
)

// TestADaemonKeepsWhatCommandsWrote: `node add` writes the new node into the hints of
// a daemon that runs, which sees its new peer a moment later.
func TestADaemonKeepsWhatCommandsWrote(t *testing.T) {
	dir := t.TempDir()
	d := &running{o: &Options{Dir: dir}, hints: &Hints{Listen: "127.0.0.1:1"}}
	if err := d.remember(nil); err != nil {
		t.Fatal(err)
	}
	h, err := LoadHints(dir)
	if err != nil {
		t.Fatal(err)
	}
	h.Nodes = []LocalNode{{"n1", dir}, {"n2", dir + ".n2"}}
	if err := h.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := d.remember(func(h *Hints) { h.Peers = []string{"127.0.0.1:2"} }); err != nil {
		t.Fatal(err)
	}
	got, err := LoadHints(dir)
	if err != nil {
		t.Fatal(err)
	}
	h.Peers = []string{"127.0.0.1:2"}
	if !reflect.DeepEqual(got, h) {
		t.Errorf("%+v, want %+v", got, h)
	}
}
