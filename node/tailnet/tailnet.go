// Package tailnet is the node.Network of a Tailscale network: addresses, presence and
// identity come from Tailscale, packets go through its userspace WireGuard (tsnet), so
// neither root nor an installed client is needed.
//
// What Tailscale says of a peer is one line of defence more, never the decision: a
// session still proves that its node was enrolled by the owner, and every object is
// judged by its signatures.
package tailnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/envknob"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/ipn/store/mem"
	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"

	"fcp"
)

// TagPrefix is what the Tailscale tags of FCP nodes begin with; `fcpctl zone acl`
// writes the policy that gives them their ports, zone by zone.
const TagPrefix = "tag:fcp-"

// CapMesh is the application capability by which a Tailscale grant admits a node that
// is neither tagged nor of the same user.
const CapMesh tailcfg.PeerCapability = "fcp.dev/cap/mesh"

// DefaultPort is the UDP port that nodes listen on at their tailnet address.
const DefaultPort = 7447

// Packet sizes of QUIC: tsnet's MTU is 1,280 bytes, less the headers of IP and UDP.
// Larger packets would be cut in two.
const (
	packetSize4 = 1252
	packetSize6 = 1232
)

const upWait = time.Minute

// Options say how to join a tailnet.
type Options struct {
	Dir        string   // where Tailscale's state is kept; empty: the node is ephemeral and keeps none
	Hostname   string   // in the tailnet; empty: tsnet's choice
	AuthKey    string   // for a node that is not logged in yet; empty: its login address is logged
	ControlURL string   // empty: Tailscale's
	Tags       []string // to ask for, such as "tag:fcp-work"
	Logger     *slog.Logger
}

// Network is a node's place in a tailnet. It fits node.Network and its optional
// interfaces. All methods are safe for concurrent use.
type Network struct {
	server *tsnet.Server
	client *local.Client
	self   netip.Addr
	logger *slog.Logger

	mu    sync.Mutex
	zones []fcp.ZoneID // guarded by mu
}

// Open joins the tailnet and waits until it can be used. Nothing is sent to
// Tailscale's log service: that is switched off first, for the whole process.
//
// Errors: CodeUnauthorized (the key was refused, or a person has to log in),
// CodeTimeout, CodeInternal.
func Open(ctx context.Context, o Options) (*Network, error) {
	envknob.SetNoLogsNoSupport()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &tsnet.Server{Dir: o.Dir, Hostname: o.Hostname, AuthKey: o.AuthKey, ControlURL: o.ControlURL, AdvertiseTags: o.Tags,
		Logf:     func(format string, args ...any) { o.Logger.Debug("tailscale: " + fmt.Sprintf(format, args...)) },
		UserLogf: func(format string, args ...any) { o.Logger.Info("tailscale: " + fmt.Sprintf(format, args...)) },
	}
	if o.Dir == "" {
		s.Ephemeral, s.Store = true, new(mem.Store)
	}
	ctx, cancel := context.WithTimeout(ctx, upWait)
	defer cancel()
	fail := func(code fcp.Code, err error) (*Network, error) {
		return nil, fcp.Wrap(code, errors.Join(err, s.Close()), "join the tailnet")
	}
	status, err := s.Up(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return fail(fcp.CodeTimeout, err)
		}
		return fail(fcp.CodeUnauthorized, err)
	}
	if status.BackendState != ipn.Running.String() || len(status.TailscaleIPs) == 0 {
		return fail(fcp.CodeUnauthorized, fmt.Errorf("its state is %s", status.BackendState))
	}
	n := &Network{server: s, self: status.TailscaleIPs[0], logger: o.Logger}
	if i := slices.IndexFunc(status.TailscaleIPs, netip.Addr.Is4); i >= 0 {
		n.self = status.TailscaleIPs[i]
	}
	if n.client, err = s.LocalClient(); err != nil {
		return fail(fcp.CodeInternal, err)
	}
	return n, nil
}

// Close leaves the tailnet. The sockets opened with Listen end.
func (n *Network) Close() error {
	return fcp.Wrap(fcp.CodeInternal, n.server.Close(), "leave the tailnet")
}

// Addr returns the node's address in the tailnet.
func (n *Network) Addr() netip.Addr { return n.self }

// Listen opens a packet socket at this node's tailnet address. Of address only the
// port counts; without one it is DefaultPort.
func (n *Network) Listen(_ context.Context, address string) (net.PacketConn, error) {
	port := uint16(DefaultPort)
	if address != "" {
		_, p, err := net.SplitHostPort(address)
		if err == nil {
			var v uint64
			if v, err = strconv.ParseUint(p, 10, 16); err == nil {
				port = uint16(v)
			}
		}
		if err != nil {
			return nil, fcp.Wrap(fcp.CodeInvalidArgument, err, "listen on %s", address)
		}
	}
	c, err := n.server.ListenPacket("udp", netip.AddrPortFrom(n.self, port).String())
	return c, fcp.Wrap(fcp.CodeInternal, err, "listen on port %d of the tailnet", port)
}

// Resolve finds a node by its tailnet address or its name there, with a port or at
// DefaultPort.
//
// Errors: CodeNotFound when no such node is in the tailnet, CodeInvalidArgument.
func (n *Network) Resolve(ctx context.Context, address string) (net.Addr, error) {
	host, port := address, uint16(DefaultPort)
	if h, p, err := net.SplitHostPort(address); err == nil {
		v, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, fcp.Wrap(fcp.CodeInvalidArgument, err, "the address %s", address)
		}
		host, port = h, uint16(v)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, port)), nil
	}
	st, err := n.client.Status(ctx)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeTimeout, err, "ask Tailscale for %s", host)
	}
	for _, p := range st.Peer {
		name, _, _ := strings.Cut(p.DNSName, ".")
		if strings.EqualFold(name, host) || strings.EqualFold(strings.TrimSuffix(p.DNSName, "."), strings.TrimSuffix(host, ".")) {
			if ip, ok := n.address(p.TailscaleIPs); ok {
				return net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, port)), nil
			}
		}
	}
	return nil, fcp.Errorf(fcp.CodeNotFound, "no node %q in the tailnet", host).WithNext("see who is in it: tailscale status")
}

// address picks the address of the family that this node listens on.
func (n *Network) address(all []netip.Addr) (netip.Addr, bool) {
	for _, ip := range all {
		if ip.Is4() == n.self.Is4() {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// PacketSize is the largest UDP payload that crosses the tailnet in one piece.
func (n *Network) PacketSize() uint16 {
	if n.self.Is4() {
		return packetSize4
	}
	return packetSize6
}

// SetZones says which zones this node has. From then on a tag or a grant admits another
// node only for one of these; before, for any.
func (n *Network) SetZones(zones []fcp.ZoneID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.zones = slices.Clone(zones)
}

// has reports whether this node has a zone that fits.
func (n *Network) has(fits func(fcp.ZoneID) bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.zones == nil || slices.ContainsFunc(n.zones, fits)
}

// TagOf is the Tailscale tag of a zone.
func TagOf(zone fcp.ZoneID) string {
	return TagPrefix + strings.NewReplacer(":", "-", ".", "-", "_", "-", "/", "-").Replace(strings.TrimPrefix(zone.String(), "z:"))
}

// Grant is the value of CapMesh in a Tailscale grant.
type Grant struct {
	Zones []string `json:"zones"` // such as "z:work"; none: every zone
}

// permits reports whether a grant is about a zone that n has.
func (g *Grant) permits(n *Network) bool {
	return len(g.Zones) == 0 || n.has(func(z fcp.ZoneID) bool { return slices.Contains(g.Zones, z.String()) })
}

// Identity is what Tailscale says of a node.
type Identity struct {
	Name   string // in the tailnet
	User   string // login name; empty for a tagged node
	Tags   []string
	Grants []Grant // those that give it CapMesh
}

// WhoIs asks Tailscale who is at an address of the tailnet.
//
// Errors: CodeUnauthorized when nobody known is.
func (n *Network) WhoIs(ctx context.Context, addr net.Addr) (Identity, error) {
	who, err := n.client.WhoIs(ctx, addr.String())
	if err != nil || who.Node == nil {
		return Identity{}, fcp.Wrap(fcp.CodeUnauthorized, errors.Join(err, errUnknown), "ask Tailscale who %s is", addr)
	}
	id := Identity{Name: strings.TrimSuffix(who.Node.Name, "."), Tags: who.Node.Tags}
	if who.CapMap.HasCapability(CapMesh) {
		// A value that does not decode grants nothing.
		if id.Grants, err = tailcfg.UnmarshalCapJSON[Grant](who.CapMap, CapMesh); err != nil {
			return Identity{}, fcp.Wrap(fcp.CodeUnauthorized, err, "the grant of %s to %s", CapMesh, id.Name)
		}
		if len(who.CapMap[CapMesh]) == 0 { // the capability alone, without a value
			id.Grants = []Grant{{}}
		}
	}
	if len(id.Tags) == 0 && who.UserProfile != nil {
		id.User = who.UserProfile.LoginName
	}
	return id, nil
}

var errUnknown = errors.New("nobody in the tailnet")

// Admit says whether a node at an address may begin a session at all: it must be of
// the same user as this one, or have the tag of a zone that this one has, or a grant
// with CapMesh for such a zone.
func (n *Network) Admit(ctx context.Context, addr net.Addr) error {
	id, err := n.WhoIs(ctx, addr)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(id.Grants, func(g Grant) bool { return g.permits(n) }) || slices.ContainsFunc(id.Tags, n.admitsTag) {
		return nil
	}
	if id.User != "" {
		st, err := n.client.StatusWithoutPeers(ctx)
		if err != nil {
			return fcp.Wrap(fcp.CodeTimeout, err, "ask Tailscale who this node is")
		}
		if st.Self != nil && (st.Self.Tags == nil || st.Self.Tags.Len() == 0) && st.User[st.Self.UserID].LoginName == id.User {
			return nil
		}
	}
	return fcp.Errorf(fcp.CodeUnauthorized, "the tailnet node %s is of another user and has neither tag nor grant for a zone of this node", id.Name).
		WithNext("tag it, or grant it " + string(CapMesh) + ": fcpctl zone acl")
}

func (n *Network) admitsTag(tag string) bool {
	return strings.HasPrefix(tag, TagPrefix) && n.has(func(z fcp.ZoneID) bool { return TagOf(z) == tag })
}

// Peer is another node of the tailnet.
type Peer struct {
	Name    string
	Address string // for Resolve and dialling, at DefaultPort
	Online  bool
	Seen    time.Time // when it was online last; zero when Tailscale does not say
	Tags    []string
	Direct  bool // packets go to it directly, not through a relay
}

// Peers returns the other nodes of the tailnet, by name.
func (n *Network) Peers(ctx context.Context) ([]Peer, error) {
	st, err := n.client.Status(ctx)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeTimeout, err, "ask Tailscale for its nodes")
	}
	var out []Peer
	for _, p := range st.Peer {
		if ip, ok := n.address(p.TailscaleIPs); ok {
			out = append(out, peerOf(p, ip))
		}
	}
	slices.SortFunc(out, func(a, b Peer) int { return strings.Compare(a.Name+a.Address, b.Name+b.Address) })
	return out, nil
}

func peerOf(p *ipnstate.PeerStatus, ip netip.Addr) Peer {
	name, _, _ := strings.Cut(p.DNSName, ".")
	out := Peer{Name: name, Address: netip.AddrPortFrom(ip, DefaultPort).String(), Online: p.Online, Seen: p.LastSeen, Direct: p.CurAddr != ""}
	if p.Tags != nil {
		out.Tags = p.Tags.AsSlice()
	}
	return out
}

// Find returns addresses at which nodes of this mesh may be: those of tailnet nodes
// that are online and that Admit would let in.
func (n *Network) Find(ctx context.Context) ([]string, error) {
	peers, err := n.Peers(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range peers {
		if !p.Online {
			continue
		}
		addr, err := net.ResolveUDPAddr("udp", p.Address)
		if err == nil && n.Admit(ctx, addr) == nil {
			out = append(out, p.Address)
		}
	}
	return out, nil
}
