package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"fcp"
)

// Hints is what a daemon remembers of the network, in mesh.json. None of it is
// believed: who answers at an address proves itself, and the enrollment is signed by
// the owner.
type Hints struct {
	Listen     string   `json:"listen,omitempty"` // where it listened last
	Peers      []string `json:"peers,omitempty"`  // where it saw others
	Policy     string   `json:"policy,omitempty"` // of placement, when `up` was told one
	Enrollment []byte   `json:"enrollment,omitempty"`
	Members    [][]byte `json:"members,omitempty"` // enrollments of the others, as they were when this device was enrolled

	// The tailnet it joined last, and that one's control server.
	Tailnet        string `json:"tailnet,omitempty"`
	TailnetControl string `json:"tailnet_control,omitempty"`

	// The nodes of `fcpctl up --nodes`, in the store that it was said to.
	Nodes []LocalNode `json:"nodes,omitempty"`
}

// LocalNode is a node on this machine that `fcpctl up --nodes` or `node add` made.
type LocalNode struct {
	Name string `json:"name"`
	Dir  string `json:"dir"`
}

const (
	hintsFile = "mesh.json"
	maxHints  = 1 << 20
)

// LoadHints reads the hints in a store's directory; none are no error.
func LoadHints(dir string) (*Hints, error) {
	b, err := os.ReadFile(filepath.Join(dir, hintsFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return &Hints{}, nil
	}
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeDisk, err, "read %s", hintsFile)
	}
	return decodeHints(b)
}

func decodeHints(b []byte) (*Hints, error) {
	bad := func(err error) error {
		return fcp.Errorf(fcp.CodeMalformed, "%s: %w", hintsFile, err).WithNext("remove the file; it is written anew")
	}
	if len(b) > maxHints {
		return nil, bad(errors.New("too long"))
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	h := new(Hints)
	if err := d.Decode(h); err != nil {
		return nil, bad(err)
	}
	return h, nil
}

// Save writes the hints, whole or not at all.
func (h *Hints) Save(dir string) error {
	b, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return fcp.Wrap(fcp.CodeInternal, err, "write %s", hintsFile)
	}
	path := filepath.Join(dir, hintsFile)
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "write %s", hintsFile)
	}
	if err := errors.Join(write(f, string(b)+"\n"), f.Sync(), f.Close()); err != nil { // on disk before it has its name
		return fcp.Wrap(fcp.CodeDisk, err, "write %s", hintsFile)
	}
	return fcp.Wrap(fcp.CodeDisk, os.Rename(temp, path), "write %s", hintsFile)
}
