package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/cmd/internal/daemon"
)

// joinView is what join did, as JSON.
type joinView struct {
	Dir     string   `json:"dir"`
	Process int      `json:"process"`
	Address string   `json:"address"`
	Peers   []string `json:"peers"`
}

func (a *app) joinCommand() *cobra.Command {
	var peers []string
	var listen string
	cmd := &cobra.Command{
		Use: "join INVITATION", Short: "Become a member with the store that another device enrolled for this one", Args: args(1, 1),
		Long: `join takes the directory that ` + "`fcpctl device enroll NAME --to DIR`" + ` wrote on another device,
copies it to the store's directory, and starts fcpd, which catches up with the mesh. The
directory holds this device's own keys: remove it from the stick afterwards. It says
where the other device listened; --peer names other addresses.`,
		Example: "  fcpctl join /media/stick/fcp\n  fcpctl --dir ~/fcp join /media/stick/fcp --listen 0.0.0.0:7700 --peer 192.168.1.5:7700",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.join(cmd.Context(), args[0], listen, peers)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "UDP address for other devices (default a free port of 127.0.0.1, kept)")
	cmd.Flags().StringArrayVar(&peers, "peer", nil, "address of another device; may be repeated")
	return cmd
}

func (a *app) join(ctx context.Context, from, listen string, peers []string) error {
	h, err := daemon.LoadHints(from)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(from, "FORMAT")); err != nil || len(h.Enrollment) == 0 {
		return fcp.Errorf(fcp.CodeInvalidArgument, "%s is not the store of a device that was enrolled for a mesh", from).
			WithNext("make one on a member with `fcpctl device enroll NAME --to DIR --identity FILE`")
	}
	here, err := filepath.Abs(a.flags.dir)
	if err == nil {
		from, err = filepath.Abs(from)
	}
	if err != nil {
		return inputError(err, "the store's directory")
	}
	if here != from {
		if entries, err := os.ReadDir(here); err == nil && len(entries) > 0 {
			return fcp.Errorf(fcp.CodeNotEmpty, "%s", here)
		}
		if err := os.MkdirAll(here, 0o700); err != nil {
			return inputError(err, "the store's directory")
		}
		if err := os.CopyFS(here, os.DirFS(from)); err != nil {
			return inputError(err, "copy the invitation")
		}
		if err := tighten(here); err != nil {
			return inputError(err, "copy the invitation")
		}
	}
	for _, p := range peers {
		if !slices.Contains(h.Peers, p) {
			h.Peers = append([]string{p}, h.Peers...)
		}
	}
	if len(h.Peers) == 0 {
		a.note("nobody's address is known; name one with --peer, or have the other device dial this one")
	}
	if err := h.Save(here); err != nil {
		return err
	}
	var flags []string
	if listen != "" {
		flags = []string{"--listen", listen}
	}
	v, err := a.startNode(ctx, daemon.LocalNode{Name: "this", Dir: here}, flags...)
	if err != nil {
		return err
	}
	if h.Peers == nil {
		h.Peers = []string{}
	}
	j := joinView{here, v.Process, v.Address, h.Peers}
	return a.record("Joined", 0, j, here, field{"store", here}, field{"process", decimal(uint64(j.Process))}, field{"address", j.Address},
		field{"next", a.command("wait", "--ready", "--converged")})
}

// tighten makes a copied store private, as it was: sticks know no owners.
func tighten(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := os.FileMode(0o600)
		if d.IsDir() {
			mode = 0o700
		}
		return os.Chmod(path, mode)
	})
}
